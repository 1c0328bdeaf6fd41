"""Builders of small trajectories and groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from agentgym.types import Completion, Group, Message, Outcome, StopReason, Trajectory, Turn

MakeGroup = Callable[..., Group]


def turn(
    i: int, parent: int | None, context: Sequence[int], ids: Sequence[int], version: int | Sequence[int] = 0
) -> Turn:
    count = len(ids)
    versions = np.full(count, version, np.int32) if isinstance(version, int) else np.array(version, np.int32)
    completion = Completion(np.array(ids, np.int32), np.linspace(-2, -1, count, dtype=np.float32), versions)
    return Turn(i, parent, np.array(context, np.int32), completion, Message("assistant", "x"))


def trajectory(turns: Sequence[Turn], reward: float | None, name: str = "t") -> Trajectory:
    outcome = Outcome.unscored if reward is None else (Outcome.correct if reward >= 1 else Outcome.incorrect)
    return Trajectory(name, "task", "env", tuple(turns), (), reward, {}, outcome, StopReason.completed)


@pytest.fixture
def make_group() -> MakeGroup:
    def make(rewards: Sequence[float | None], turns: Sequence[int] | None = None) -> Group:
        counts = turns or [2] * len(rewards)
        made = []
        for i, (reward, count) in enumerate(zip(rewards, counts, strict=True)):
            chain = [turn(k, k - 1 if k else None, [1, 2 + i], [5 + k, 6, 7][: 1 + k % 3]) for k in range(count)]
            made.append(trajectory(chain, reward, f"t{i}"))
        return Group("0:task", "task", "env", tuple(made))

    return make
