"""A rubric: named, weighted parts of a reward. A part that fails makes the episode unscored, never 0."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from agentgym.errors import ConfigError, VerifierFault, boundary
from agentgym.tools.driving import checkpoint
from agentgym.tools.episode import Episode
from agentgym.types import Outcome, Task

Reward: TypeAlias = Callable[[Task, str, Episode], Any]
"""reward(task, answer, episode) -> a number, a bool, an `Outcome`, or a dict of them by name; may be async."""


@dataclass(frozen=True, slots=True)
class Component:
    """One part. `name` is used where `fn` gives a single value. Weight 0 makes it a metric.

    `per_turn`: called after each assistant message with that message's text, and paid with that turn; else once, at
    the end, with the episode's answer.
    """

    fn: Reward
    name: str = "reward"
    weight: float = 1.0
    per_turn: bool = False


class Rubric:
    """The parts of a reward; `weights` overrides or adds weights by name, for parts that return dicts."""

    def __init__(self, parts: Iterable[Component], weights: Mapping[str, float] | None = None):
        parts = tuple(parts)
        self._turn = tuple(part for part in parts if part.per_turn)
        self._end = tuple(part for part in parts if not part.per_turn)
        self._weights = {part.name: part.weight for part in parts} | dict(weights or {})
        if len({part.name for part in parts}) < len(parts):
            raise ConfigError(f"two reward components share a name: {', '.join(part.name for part in parts)}")

    @classmethod
    def of(cls, reward: Any, weights: Mapping[str, float] | None = None) -> Rubric:
        """From a function, a component, a list of either, or a dict of functions by name."""
        if isinstance(reward, Rubric):
            return reward
        if isinstance(reward, Component):
            return cls([reward], weights)
        if isinstance(reward, Mapping):
            return cls([Component(fn, name) for name, fn in reward.items()], weights)
        if isinstance(reward, Iterable):
            named = [part if isinstance(part, Component) else Component(part, part.__name__) for part in reward]
            return cls(named, weights)
        return cls([Component(reward)], weights)

    @property
    def has_turns(self) -> bool:
        return bool(self._turn)

    async def score_turn(self, task: Task, text: str, episode: Episode) -> dict[str, float]:
        """What one assistant message is paid; raises `VerifierFault`."""
        return await self._score(self._turn, task, text, episode)

    async def score_end(self, task: Task, answer: str, episode: Episode) -> dict[str, float]:
        """What the episode is paid at its end; raises `VerifierFault`."""
        return await self._score(self._end, task, answer, episode)

    def total(self, values: Mapping[str, float]) -> float:
        """The weighted sum; a name without a weight counts once."""
        return float(sum(self._weights.get(name, 1.0) * value for name, value in values.items()))

    async def _score(self, parts: Iterable[Component], task: Task, text: str, episode: Episode) -> dict[str, float]:
        values: dict[str, float] = {}
        for part in parts:
            with boundary(VerifierFault, f"reward {part.name!r}"):
                value = part.fn(task, text, episode)
                if type(value) is not float and inspect.isawaitable(value):
                    await checkpoint()
                    value = await value
            if isinstance(value, Mapping):
                values.update((str(name), _number(str(name), item)) for name, item in value.items())
            else:
                values[part.name] = _number(part.name, value)
        return values


def _number(name: str, value: Any) -> float:
    if isinstance(value, Outcome):
        if value in (Outcome.error, Outcome.unscored):
            raise VerifierFault(f"reward {name!r}: the verifier gave no verdict ({value.value})")
        return 1.0 if value else 0.0
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise VerifierFault(f"reward {name!r}: expected a number, got {type(value).__name__}") from None
    if not math.isfinite(number):
        raise VerifierFault(f"reward {name!r}: {number} is not a finite number")
    return number
