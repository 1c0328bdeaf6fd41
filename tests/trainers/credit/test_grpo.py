"""grpo: group statistics over trajectories, whatever their number of turns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgym.config import load_config
from agentgym.errors import ConfigError
from agentgym.trainers.credit import make_credit
from agentgym.trainers.credit.grpo import grpo
from agentgym.types import Group
from tests.trainers.conftest import trajectory, turn


def group_of(rewards: list[float | None], turns: list[int]) -> Group:
    made = []
    for reward, count in zip(rewards, turns, strict=True):
        made.append(trajectory([turn(k, k - 1 if k else None, [1], [5, 6]) for k in range(count)], reward))
    return Group("0:a", "a", "env", tuple(made))


def test_hand_computed() -> None:
    credit = grpo(group_of([1.0, 0.0, 0.0, 1.0], [1, 2, 3, 1]), eps=0.0)
    assert [float(per_turn[0][0]) for per_turn in credit] == [1.0, -1.0, -1.0, 1.0]
    assert [len(per_turn) for per_turn in credit] == [1, 2, 3, 1]
    assert credit[0][0].dtype == np.float32


def test_without_std_is_the_centred_reward() -> None:
    credit = grpo(group_of([1.0, 0.0, 0.0, 0.0], [1] * 4), std=False)
    assert [float(c[0][0]) for c in credit] == [0.75, -0.25, -0.25, -0.25]


def test_unscored_neither_count_nor_get_credit() -> None:
    credit = grpo(group_of([1.0, None, 0.0], [1] * 3), std=False)
    assert [float(c[0][0]) for c in credit] == [0.5, 0.0, -0.5]
    assert [float(c[0][0]) for c in grpo(group_of([1.0, None], [1, 1]))] == [0.0, 0.0]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4)), min_size=2, max_size=8))
def test_mean_zero_and_independent_of_turns(shape: list[tuple[int, int]]) -> None:
    rewards = [r / 4 for r, _ in shape]
    many = grpo(group_of(list(rewards), [t for _, t in shape]))
    one = grpo(group_of(list(rewards), [1] * len(shape)))
    firsts = [float(c[0][0]) for c in many]
    assert firsts == [float(c[0][0]) for c in one]
    assert abs(sum(firsts)) < 1e-2 * max(1.0, max(map(abs, firsts)))
    if len(set(rewards)) == 1:
        assert firsts == [0.0] * len(shape)


def test_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.credit = 'gpro'"):
        make_credit(load_config(None, ["--trainer.credit=gpro"]))
