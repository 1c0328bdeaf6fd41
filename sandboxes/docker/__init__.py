"""The docker sandbox: hardened containers, each with one worker that lives on."""

from __future__ import annotations

from agentgym.sandboxes.docker.backend import DockerBackend

__all__ = ["DockerBackend"]
