"""What long episodes cost: DAPO's soft punishment and overlong filtering."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from agentgym.config import load_config
from agentgym.errors import ConfigError
from agentgym.trainers.credit import each
from agentgym.trainers.credit.grpo import grpo
from agentgym.trainers.shaping import Shaped, length_penalty, shaped
from agentgym.types import Group, StopReason

MakeGroup = Callable[..., Group]
plain: Any = each(partial(grpo, std=False))


def test_the_penalty_by_hand() -> None:
    assert [length_penalty(n, 100, 20) for n in (0, 80, 85, 95, 100, 140)] == [0, 0, -0.25, -0.75, -1, -1]


def first(credit: list[list[Any]]) -> list[float]:
    return [round(float(turns[0][0]), 6) for turns in credit]


def test_longer_episodes_are_worth_less_in_the_comparison(make_group: MakeGroup) -> None:
    group = make_group([1.0, 1.0, None], turns=[1, 3, 1])
    sizes = [t.sampled_tokens for t in group.trajectories]
    assert sizes[:2] == [1, 6]
    found = Shaped(plain, limit=8, buffer=4, penalty=0.4)([group])[0]
    # 2 of the 4 tokens of the buffer are used: 0.2 less for the second
    assert first(found) == [0.1, -0.1, 0.0]
    assert [t.reward for t in group.trajectories] == [1.0, 1.0, None]


def test_what_ran_out_of_tokens_counts_in_the_comparison_and_is_not_learnt_from(make_group: MakeGroup) -> None:
    group = make_group([1.0, 0.0, 0.0, 0.0], turns=[1] * 4)
    reasons = (StopReason.completed, StopReason.max_tokens, StopReason.context_overflow, StopReason.max_turns)
    cut = tuple(replace(t, stop_reason=r) for t, r in zip(group.trajectories, reasons, strict=True))
    found = Shaped(plain, mask_truncated=True)([replace(group, trajectories=cut)])[0]
    assert first(found) == [0.75, 0.0, 0.0, -0.25]


def test_it_is_asked_for_in_the_config() -> None:
    assert shaped(plain, load_config(None)) is plain
    made = shaped(plain, load_config(None, ["loss.overlong_buffer=10", "rollout.max_episode_tokens=64"]))
    assert isinstance(made, Shaped)
    assert (made.limit, made.buffer) == (64, 10)
    made = shaped(plain, load_config(None, ["loss.overlong_buffer=10", "loss.overlong_limit=50"]))
    assert isinstance(made, Shaped)
    assert made.limit == 50
    with pytest.raises(ConfigError, match=r"loss.overlong_buffer = 10.*not set; set rollout.max_episode_tokens"):
        shaped(plain, load_config(None, ["loss.overlong_buffer=10"]))
    with pytest.raises(ConfigError, match=r"loss.overlong_buffer = 10.*ends at is 8"):
        shaped(plain, load_config(None, ["loss.overlong_buffer=10", "loss.overlong_limit=8"]))
