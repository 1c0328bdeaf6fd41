"""What a tool raises to say more than an answer can."""

from __future__ import annotations


class ToolFailed(Exception):
    """Raise it in a tool that failed for a reason of the model's: its text is the whole observation."""


class ToolBusy(ToolFailed):
    """Raise it in a tool that cannot serve now: its text (default "busy") is the whole observation."""

    def __init__(self, text: str = "busy"):
        super().__init__(text)


class StopEpisode(Exception):
    """Raise it in a tool to end the episode; its text is the observation."""


def used_up(tool: str, calls: int) -> ToolFailed:
    """The answer to a call beyond a tool's `max_calls`."""
    times = "once" if calls == 1 else f"{calls} times"
    return ToolFailed(f"error: {tool} can be called {times} in an episode, and that is used up")
