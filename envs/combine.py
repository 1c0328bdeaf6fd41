"""Several graders as one: `all_of`, `any_of`, `majority`, `product`, `lowest`. (A weighted sum is the rubric itself.)

    reward = all_of(right_number, majority(judge_a, judge_b, judge_c))

Each takes graders (rewards of task, answer and episode) whose values are in [0, 1] and gives one more such grader.
They are asked in the order given, and only until the result is certain: put the cheap ones first. A grader that gives
no verdict could have said anything from 0 to 1. Where that could change the result, there is none, and the episode is
unscored; where it could not (one of `any_of` said yes), the result stands.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

from agentgym.envs.rubric import Reward, name_of, to_number
from agentgym.envs.verifiers.verdict import Verdict
from agentgym.errors import ConfigError, VerifierFault, boundary
from agentgym.tools.driving import checkpoint
from agentgym.tools.episode import Episode
from agentgym.types import Outcome, Task

Fold = Callable[[Sequence[float]], float]
"""One value from all of them; it must not fall where one of them rises."""


def all_of(*graders: Reward) -> Reward:
    """1 where every grader gives 1, else 0."""
    return Combined("all_of", graders, lambda values: float(min(values) >= 1))


def any_of(*graders: Reward) -> Reward:
    """1 where at least one grader gives 1, else 0."""
    return Combined("any_of", graders, lambda values: float(max(values) >= 1))


def majority(*graders: Reward) -> Reward:
    """1 where more than half of the graders give 1/2 or more, else 0."""
    return Combined("majority", graders, lambda values: float(2 * sum(v >= 0.5 for v in values) > len(values)))


def product(*graders: Reward) -> Reward:
    """All values multiplied: each grader is a gate to the others."""
    return Combined("product", graders, math.prod)


def lowest(*graders: Reward) -> Reward:
    """The least of the values."""
    return Combined("lowest", graders, min)


class Combined:
    """A grader made of graders by a fold that is monotone; see the functions of this module."""

    def __init__(self, name: str, graders: Sequence[Reward], fold: Fold):
        if not graders:
            raise ConfigError(f"{name}: there are no graders")
        self.__name__ = name
        self._graders = tuple(graders)
        self._fold = fold

    async def __call__(self, task: Task, answer: str, episode: Episode) -> Verdict:
        low, high = [0.0] * len(self._graders), [1.0] * len(self._graders)
        said: list[str] = []
        for i, grader in enumerate(self._graders):
            try:
                low[i] = high[i] = await _ask(grader, task, answer, episode)
                said.append(f"{name_of(grader)}: {low[i]:g}")
            except VerifierFault as fault:
                said.append(f"{name_of(grader)}: no verdict ({fault})")
            value = self._fold(low)
            if value == self._fold(high):
                return Verdict(_outcome(value), f"{self.__name__}: {'; '.join(said)}", value)
        return Verdict(Outcome.error, f"{self.__name__}: {'; '.join(said)}")


async def _ask(grader: Reward, task: Task, answer: str, episode: Episode) -> float:
    name = name_of(grader)
    with boundary(VerifierFault, name):
        value: Any = grader(task, answer, episode)
        if inspect.isawaitable(value):
            await checkpoint()
            value = await value
    number = to_number(name, value)
    if not 0 <= number <= 1:
        raise VerifierFault(f"grader {name!r} gave {number:g}: graders that are combined give values from 0 to 1")
    return number


def _outcome(value: float) -> Outcome:
    return Outcome.correct if value >= 1 else Outcome.incorrect
