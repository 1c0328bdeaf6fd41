"""The think tool: room for a thought between calls."""

from __future__ import annotations

from agentgym.tools.decorator import tool


@tool
def think(thought: str) -> str:
    """Write down a thought before going on. Nothing happens and nobody is answered.

    Args:
        thought: what to keep in mind
    """
    return "noted"  # the thought stays in the conversation as the call's argument; rewards read the answer only
