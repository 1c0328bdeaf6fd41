"""The default sandbox: Python sessions forked in milliseconds behind Linux namespaces. No daemon, no account."""

from __future__ import annotations

from agentgym.sandboxes.local.backend import LocalBackend

__all__ = ["LocalBackend"]
