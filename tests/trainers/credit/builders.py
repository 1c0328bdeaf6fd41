"""Small groups by what their turns were paid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from agentgym.types import Floats, Group, Message, Trajectory
from tests.trainers.conftest import trajectory, turn


def played(
    rewards: Sequence[float], *, scored: bool = True, tokens: int = 2, name: str = "t", **more: Any
) -> Trajectory:
    """A chain of turns of `tokens` sampled tokens each, paid like this; `more` are the trajectory's own fields."""
    turns = [
        replace(turn(k, k - 1 if k else None, [1, 2], [5] * tokens), reward=reward) for k, reward in enumerate(rewards)
    ]
    made = trajectory(turns, float(sum(rewards)) if scored else None, name)
    return replace(made, prompt=(Message("user", "go"),), **more)


def told(given: Trajectory, *observations: str) -> Trajectory:
    """With what the tools said after each turn; those that are not named said nothing."""
    said = [*observations, *[""] * len(given.turns)]
    turns = [
        replace(t, observations=(Message("tool", text),) if text else ())
        for t, text in zip(given.turns, said, strict=False)
    ]
    return replace(given, turns=tuple(turns))


def scored(given: Trajectory, start: float | None, *after: float | None) -> Trajectory:
    """With the scores of its states."""
    turns = [replace(t, score=score) for t, score in zip(given.turns, after, strict=True)]
    return replace(given, turns=tuple(turns), start_score=start)


def valued(given: Trajectory, *values: Sequence[float]) -> Trajectory:
    """With a critic's values of each turn's tokens."""
    turns = [replace(t, values=np.array(v, np.float32)) for t, v in zip(given.turns, values, strict=True)]
    return replace(given, turns=tuple(turns))


def group(*trajectories: Trajectory) -> Group:
    return Group("0:task", "task", "env", tuple(replace(t, id=f"0:task/{i}") for i, t in enumerate(trajectories)))


def firsts(credit: Sequence[Sequence[Floats]]) -> list[list[float]]:
    """The advantage of each turn's first token, rounded."""
    return [[round(float(advantage[0]), 5) for advantage in turns] for turns in credit]
