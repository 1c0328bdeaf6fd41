"""How a group ended is what was done with it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agentgym.trainers.credit.grpo import grpo
from agentgym.trainers.credit.reinforce_pp import reinforce_pp
from agentgym.trainers.ledger import group_outcome
from agentgym.types import Group


@pytest.mark.parametrize(
    ("rewards", "outcome"),
    [([1.0, 0.0], "trained"), ([1.0, 1.0], "filtered"), ([1.0, None], "unscored"), ([None, None], "unscored")],
)
def test_by_its_credit(make_group: Callable[..., Group], rewards: list[float | None], outcome: str) -> None:
    group = make_group(rewards)
    assert group_outcome(group, grpo(group), version=0, max_staleness=0) == outcome
    if outcome == "trained":
        assert group_outcome(group, grpo(group), version=1, max_staleness=0) == "stale"


def test_an_episode_that_is_alone_is_trained_where_the_batch_is_its_measure(make_group: Callable[..., Group]) -> None:
    alone, other = make_group([1.0, None]), make_group([0.0, 0.0])
    credits = reinforce_pp([alone, other])
    found = [group_outcome(g, c, version=0, max_staleness=0) for g, c in zip((alone, other), credits, strict=True)]
    assert found == ["trained", "trained"]
