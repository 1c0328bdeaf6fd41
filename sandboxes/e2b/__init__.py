"""Sandboxes in the E2B cloud: one virtual machine each. An account's key is needed, nothing of this machine is."""

from __future__ import annotations

from agentgym.sandboxes.e2b.backend import E2BBackend

__all__ = ["E2BBackend"]
