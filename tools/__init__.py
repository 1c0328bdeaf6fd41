"""Tools that models can call: the `@tool` decorator, sets of tools, and the built-in ones."""

from agentgym.tools.decorator import BadArguments, FunctionTool, StopEpisode, ToolBusy, ToolFailed, tool
from agentgym.tools.episode import Episode, ToolResult
from agentgym.tools.toolset import ToolSet

__all__ = [
    "BadArguments",
    "Episode",
    "FunctionTool",
    "StopEpisode",
    "ToolBusy",
    "ToolFailed",
    "ToolResult",
    "ToolSet",
    "tool",
]
