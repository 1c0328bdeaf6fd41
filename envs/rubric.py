"""A rubric: named, weighted parts of a reward. A part that fails makes the episode unscored, never 0.

A part is called at the episode's end, after each assistant message, or once over a whole group of episodes.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from agentgym.envs.verifiers.verdict import Verdict
from agentgym.errors import ConfigError, VerifierFault, boundary
from agentgym.protocols import GroupPay
from agentgym.tools.driving import checkpoint
from agentgym.tools.episode import Episode
from agentgym.types import Outcome, Task, Trajectory

Reward: TypeAlias = Callable[[Task, str, Episode], Any]
"""reward(task, answer, episode) -> a number, a bool, an `Outcome`, a `Verdict`, or a dict of them by name; may be
async."""
GroupReward: TypeAlias = Callable[[Task, Sequence[Trajectory]], Any]
"""reward(task, trajectories) -> a number (or the like) for each of the task's scored episodes; may be async."""


@dataclass(frozen=True, slots=True)
class Component:
    """One part. `name` is used where `fn` gives a single value. Weight 0 makes it a metric.

    `per_turn`: called after each assistant message with that message's text, and paid with that turn. `per_group`: a
    `GroupReward`, called once when all episodes of the task have ended; it changes rewards, never outcomes. Else
    called at the episode's end, with its answer.
    """

    fn: Reward | GroupReward
    name: str = "reward"
    weight: float = 1.0
    per_turn: bool = False
    per_group: bool = False


class Rubric:
    """The parts of a reward; `weights` overrides or adds weights by name, for parts that return dicts."""

    def __init__(self, parts: Iterable[Component], weights: Mapping[str, float] | None = None):
        parts = tuple(parts)
        self._turn = tuple(part for part in parts if part.per_turn)
        self.has_turns = bool(self._turn)
        self._group = tuple(part for part in parts if part.per_group)
        self.has_groups = bool(self._group)
        self._end = tuple(part for part in parts if not (part.per_turn or part.per_group))
        self._weights = {part.name: part.weight for part in parts} | dict(weights or {})
        if len({part.name for part in parts}) < len(parts):
            raise ConfigError(f"two reward components share a name: {', '.join(part.name for part in parts)}")
        if both := [part.name for part in parts if part.per_turn and part.per_group]:
            raise ConfigError(f"reward component {both[0]!r}: it is either per turn or per group")

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
            return cls(
                [part if isinstance(part, Component) else Component(part, name_of(part)) for part in reward], weights
            )
        return cls([Component(reward)], weights)

    def joined(self, more: Iterable[Component]) -> Rubric:
        """This rubric with further parts. Raises `ConfigError` where a name is taken."""
        return Rubric((*self._turn, *self._end, *self._group, *more), self._weights | {p.name: p.weight for p in more})

    async def score_turn(self, task: Task, text: str, episode: Episode) -> dict[str, float]:
        """What one assistant message is paid; raises `VerifierFault`."""
        return await self._score(self._turn, task, text, episode)

    async def score_end(self, task: Task, answer: str, episode: Episode) -> dict[str, float]:
        """What the episode is paid at its end; raises `VerifierFault`."""
        return await self._score(self._end, task, answer, episode)

    async def score_group(self, task: Task, trajectories: Sequence[Trajectory]) -> list[GroupPay]:
        """What each of a task's episodes is paid for how it compares with the others; raises `VerifierFault`."""
        values: list[dict[str, float]] = [{} for _ in trajectories]
        for part in self._group:
            for row, value in zip(values, await self._compare(part, task, trajectories), strict=True):
                _put(row, part.name, value)
        return [GroupPay(self.total(row), row) for row in values]

    async def _compare(self, part: Component, task: Task, trajectories: Sequence[Trajectory]) -> Sequence[Any]:
        compare: Any = part.fn
        with boundary(VerifierFault, f"reward {part.name!r}"):
            given = compare(task, trajectories)
            found = list(await given if inspect.isawaitable(given) else given)
        if len(found) != len(trajectories):
            raise VerifierFault(f"reward {part.name!r}: {len(found)} values for {len(trajectories)} episodes")
        return found

    def total(self, values: Mapping[str, float]) -> float:
        """The weighted sum; a name without a weight counts once."""
        return float(sum([self._weights.get(name, 1.0) * value for name, value in values.items()]))

    async def _score(self, parts: Iterable[Component], task: Task, text: str, episode: Episode) -> dict[str, float]:
        values: dict[str, float] = {}
        for part in parts:
            with boundary(VerifierFault, f"reward {part.name!r}"):
                score: Any = part.fn
                value = score(task, text, episode)
                if type(value) is not float and inspect.isawaitable(value):
                    await checkpoint()
                    value = await value
            _put(values, part.name, value)
            if isinstance(value, Verdict) and value.reason:
                episode.reasons[part.name] = value.reason
        return values


def name_of(grader: Any) -> str:
    """A function's name; an object's is that of its class, in small letters."""
    return getattr(grader, "__name__", None) or type(grader).__name__.lower()


def _put(values: dict[str, float], name: str, value: Any) -> None:
    if type(value) is float and math.isfinite(value):  # most of them
        values[name] = value
    elif isinstance(value, Mapping):
        values.update((str(key), to_number(str(key), item)) for key, item in value.items())
    else:
        values[name] = to_number(name, value)


def to_number(name: str, value: Any) -> float:
    """What a part's value is worth; raises `VerifierFault` where it is no verdict, or no finite number."""
    if isinstance(value, Verdict):
        if value.outcome in (Outcome.error, Outcome.unscored):
            raise VerifierFault(f"reward {name!r}: {value.reason or 'the verifier gave no verdict'}")
        value = value.value
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
