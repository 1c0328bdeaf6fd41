"""What tools that use the episode's sandbox share: a result as text for the model."""

from __future__ import annotations

from agentgym.activity import current
from agentgym.errors import SandboxFault
from agentgym.execution import ExecResult, ExecStatus, SandboxLimits
from agentgym.tools.episode import Episode

NOTHING = "(no output)"
SHARE = 0.9
"""Of what an episode's turn has left, a call gets so much: its answer is to come before the end."""


def seconds(episode: Episode) -> float | None:
    """Seconds for a call in the episode's sandbox: None for the sandbox's own limit, less where the turn ends first."""
    activity = current()
    if activity is None:
        return None
    usual = float(episode.sandbox_settings.get("timeout") or SandboxLimits().timeout)
    left = SHARE * activity.left
    return None if left > usual else max(left, 0.01)


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
