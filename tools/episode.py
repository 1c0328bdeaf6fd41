"""What tools, setup hooks and rewards see of the episode under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agentgym.protocols import Sandbox
from agentgym.quick import quick
from agentgym.tools.dice import Dice
from agentgym.tools.driving import checkpoint
from agentgym.types import Message, Task, ToolCall


@quick
@dataclass(frozen=True, slots=True)
class ToolResult:
    """What one call was answered. `error`: the agent may want to try again; `stop`: the episode ends here."""

    call: ToolCall
    text: str
    error: bool = False
    stop: bool = False

    def message(self) -> Message:
        return Message("tool", self.text, None, (), self.call.id, self.call.name or None)


@dataclass(slots=True)
class Episode:
    """One episode's state, made anew at every reset and the same object until the next.

    `state` is free for setup and tools. `dice`, a generator or the seed of one, is what `rng` draws from. `tags`
    and `metrics` end in the trajectory: tags are conditions that success is also reported by, metrics are numbers.
    A tool parameter annotated `Episode` is given this object and hidden from the model.
    """

    task: Task
    dice: np.random.Generator | Dice
    messages: list[Message] = field(default_factory=list)
    tools: tuple[Mapping[str, Any], ...] = ()
    state: dict[str, Any] = field(default_factory=dict)
    turns: int = 0
    """Assistant messages so far."""
    calls: list[ToolResult] = field(default_factory=list)
    """Every call answered so far, in order."""
    tags: list[str] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    """Why the parts of the reward gave what they gave, by name, where they said so."""
    parse_errors: int = 0
    """Malformed messages in a row."""
    score: float | None = None
    """How near the state was to its goal after the last turn, 0 to 1, where turns are paid for getting nearer."""
    sandbox_settings: Mapping[str, Any] = field(default_factory=dict)
    """The env's, with those of the task over them: `backend`, `at_once`, and fields of a sandbox spec."""
    used: dict[str, int] = field(default_factory=dict)
    """Calls so far of the tools that have a limit."""
    _at_end: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    _sandbox: Sandbox | None = None
    _opening: asyncio.Lock | None = None

    @property
    def rng(self) -> np.random.Generator:
        """The env's seeded generator: draw everything random from it."""
        return self.dice.rng if isinstance(self.dice, Dice) else self.dice

    async def sandbox(self) -> Sandbox:
        """The episode's own sandbox, made at the first call and closed at the end of the episode."""
        if self._sandbox is not None:
            return self._sandbox
        from agentgym.sandboxes import make_spec, shared_pool

        await checkpoint()
        self._opening = self._opening or asyncio.Lock()
        async with self._opening:  # parallel tools may ask at once
            if self._sandbox is None:
                settings = dict(self.sandbox_settings)
                pool = shared_pool(settings.pop("backend", "local"), settings.pop("at_once", None))
                self._sandbox = await pool.create(make_spec(**settings))
        return self._sandbox

    def at_end(self, close: Callable[[], Awaitable[None]]) -> None:
        """Have something closed with the episode: what a tool has opened for it alone."""
        self._at_end.append(close)

    async def release(self) -> None:
        """Give back what was opened for the episode: its sandbox, and what tools left with `at_end`."""
        sandbox, self._sandbox = self._sandbox, None
        closing, self._at_end = self._at_end, []
        try:
            for close in closing:
                await checkpoint()
                await close()
        finally:
            if sandbox is not None:
                await checkpoint()
                await sandbox.close()

    def spend(self, tool: str, limit: int) -> bool:
        """Count a call of a tool that has a limit; False if there is none left."""
        used = self.used.get(tool, 0)
        if used >= limit:
            return False
        self.used[tool] = used + 1
        return True

    def tag(self, name: str) -> None:
        """Add a tag once."""
        if name not in self.tags:
            self.tags.append(name)

    def count(self, name: str, by: float = 1) -> None:
        """Add to a metric."""
        self.metrics[name] = self.metrics.get(name, 0) + by

    @property
    def answer(self) -> str:
        """The text of the agent's own last message if it called no tool, else empty: the only thing rewards score."""
        for message in reversed(self.messages):
            if message.role == "assistant":
                return "" if message.tool_calls else message.text
        return ""
