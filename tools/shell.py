"""The shell tool: a terminal in the episode's sandbox that lives on."""

from __future__ import annotations

from agentgym.tools.decorator import ToolFailed, tool
from agentgym.tools.episode import Episode
from agentgym.tools.sandboxed import seconds, told


@tool
async def shell(command: str, episode: Episode) -> str:
    """Run a shell command. The terminal lives on: its directory, variables and background jobs too.

    Args:
        command: a command line, or several lines
    """
    done = await (await episode.sandbox()).terminal(command, timeout=seconds(episode))
    text = told(done, shown=f"[exit code {done.exit_code}]" if done.exit_code else None)
    if not done.ok:
        raise ToolFailed(text)
    return text
