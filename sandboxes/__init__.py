"""Sandboxes: where untrusted code runs. `create` gives one; `Pool` lends them out, a set number at a time."""

from agentgym.execution import Capabilities, ExecResult, ExecStatus, SandboxLimits, SandboxSpec
from agentgym.sandboxes.backends import create, make_backend, make_spec, shared_backend, shared_pool
from agentgym.sandboxes.pool import Pool

__all__ = [
    "Capabilities",
    "ExecResult",
    "ExecStatus",
    "Pool",
    "SandboxLimits",
    "SandboxSpec",
    "create",
    "make_backend",
    "make_spec",
    "shared_backend",
    "shared_pool",
]
