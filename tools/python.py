"""The python tool: an interpreter in the episode's sandbox whose variables live on."""

from __future__ import annotations

from agentgym.tools.decorator import ToolFailed, tool
from agentgym.tools.episode import Episode
from agentgym.tools.sandboxed import seconds, told


@tool
async def python(code: str, episode: Episode) -> str:
    """Run Python code. Answers with what it printed and the value of its last expression; variables live on.

    Args:
        code: Python statements
    """
    done = await (await episode.sandbox()).exec(code, timeout=seconds(episode))
    text = told(done, shown=done.result)
    if not done.ok:
        raise ToolFailed(text)
    return text
