"""What an episode is doing at this moment, since when, and until when it may: for limits, and for whoever asks what a
run waits for.

Whoever plays an episode makes its `Activity` the current one; what is called below (envs, tools) finds it by `current`.
It is written at each change and read from anywhere, other threads too: a few attribute stores a turn.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import ContextVar, Token
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentgym.overrun import Guard

SETUP, ENGINE, ENV, REWARD, PROGRAM, OVER = "setup", "engine", "env", "reward", "program", "over"
TOOL = "tool"

Call = tuple[str, float]
"""A tool's name, and when its call began."""


class Activity:
    """One episode's. Times are `time.monotonic`'s, which is the event loop's clock too."""

    __slots__ = (
        "calls", "cancelled_in", "ends", "episode", "guard", "inline", "since", "tool_seconds", "until", "what",
    )  # fmt: skip

    def __init__(
        self,
        episode: str,
        seconds: float = float("inf"),
        *,
        tool_seconds: float = 0.0,
        guard: Guard | None = None,
    ):
        """seconds: those that it may take; tool_seconds: those of one call of a tool, 0 for no limit of its own; guard:
        who stops code that holds up the event loop, None for nobody."""
        self.episode = episode
        self.what = SETUP
        self.since = monotonic()
        self.ends = self.since + seconds
        """When the episode has to be over."""
        self.until = self.ends
        """When what it is doing has to be over: the turn's end, never later than the episode's."""
        self.calls: list[Call] = []
        self.tool_seconds = tool_seconds
        self.guard = guard
        self.inline = False
        """Whether a tool that is not async is being run in the event loop's own thread."""
        self.cancelled_in = ""
        """What it was doing when it was cancelled, if it was."""

    def enter(self, what: str) -> None:
        """From now on it does this. Calls that were broken off are forgotten."""
        self.what, self.since, self.inline = what, monotonic(), False
        if self.calls:
            self.calls = []

    def turn(self, seconds: float) -> None:
        """A turn begins, and has so many seconds: but no more than the episode has."""
        self.until = min(self.ends, monotonic() + seconds)

    def extend(self, seconds: float) -> None:
        """Time is up, and so much more is given to find out how it ended."""
        self.ends = self.until = monotonic() + seconds

    def begin(self, tool: str) -> Call:
        """A call of a tool begins; `end` takes what this returns. One that is broken off by a limit has no end: it
        stays, for whoever has to say what took so long."""
        call = (tool, monotonic())
        self.calls.append(call)
        return call

    def end(self, call: Call) -> None:
        calls = self.calls
        if call in calls:
            calls.remove(call)

    def waiting_on(self) -> tuple[str, float]:
        """What it is doing (`engine`, `tool NAME`, ...), and since when."""
        calls = self.calls
        if calls:
            tool, since = calls[0]
            return f"{TOOL} {tool}", since
        return self.what, self.since

    @property
    def limit(self) -> float:
        """When the present call or turn has to be over."""
        calls = self.calls
        if calls and self.tool_seconds:
            return min(self.until, calls[0][1] + self.tool_seconds)
        return self.until

    @property
    def left(self) -> float:
        """Seconds until then; 0 where none are."""
        return max(0.0, self.limit - monotonic())


_current: ContextVar[Activity | None] = ContextVar("agentgym_activity", default=None)
current = _current.get
"""The activity of the episode that this code plays in; None outside of one."""


def make_current(activity: Activity | None) -> Token[Activity | None]:
    """For this task and those that it starts."""
    return _current.set(activity)


def restore(token: Token[Activity | None]) -> None:
    with suppress(ValueError):  # a task that is thrown away is ended in somebody else's context
        _current.reset(token)


def clipped(seconds: float) -> float:
    """So many seconds, or what the episode's turn has left of them."""
    activity = current()
    return seconds if activity is None else min(seconds, activity.left)


def broken_off(error: BaseException) -> bool:
    """Whether code was ended from outside, by a limit, and did not end by itself."""
    return isinstance(error, asyncio.CancelledError) or not isinstance(error, Exception)
