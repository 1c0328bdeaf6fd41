"""What tools, setup hooks and rewards see of the episode under way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agentgym.types import Message, Task, ToolCall


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

    `state` is free for setup and tools. `rng` is the env's seeded generator: draw everything random from it. `tags`
    and `metrics` end in the trajectory: tags are conditions that success is also reported by, metrics are numbers.
    A tool parameter annotated `Episode` is given this object and hidden from the model.
    """

    task: Task
    rng: np.random.Generator
    messages: list[Message] = field(default_factory=list)
    tools: tuple[Mapping[str, Any], ...] = ()
    state: dict[str, Any] = field(default_factory=dict)
    turns: int = 0
    """Assistant messages so far."""
    calls: list[ToolResult] = field(default_factory=list)
    """Every call answered so far, in order."""
    tags: list[str] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    parse_errors: int = 0
    """Malformed messages in a row."""

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
