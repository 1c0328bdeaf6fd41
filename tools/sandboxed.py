"""What tools that use the episode's sandbox share: a result as text for the model."""

from __future__ import annotations

from agentgym.errors import SandboxFault
from agentgym.execution import ExecResult, ExecStatus

NOTHING = "(no output)"


def told(done: ExecResult, shown: str | None = None) -> str:
    """stdout, stderr, `shown`, and what went wrong; raises `SandboxFault` where the sandbox itself failed."""
    if done.status is ExecStatus.infra_error:
        raise SandboxFault(f"the sandbox failed: {done.error}")
    parts = [done.stdout, done.stderr, shown or ""]
    if done.error and done.error not in done.stderr:
        parts.append(f"error: {done.error}")
    if done.state_lost:
        parts.append(f"error: {done.status}; variables and files are gone, the next call begins afresh")
    return "\n".join(part.rstrip("\n") for part in parts if part.strip()) or NOTHING
