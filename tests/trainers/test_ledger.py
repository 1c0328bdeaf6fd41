"""How a group ended is what was done with it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from agentgym.protocols import BatchCredit
from agentgym.trainers.credit import each
from agentgym.trainers.credit.grpo import grpo, grpo_over_batch
from agentgym.trainers.credit.reinforce_pp import reinforce_pp
from agentgym.trainers.credit.whiten import whitened
from agentgym.trainers.ledger import could_teach, group_outcome
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


OVER_BATCH, BY_GROUP = partial(reinforce_pp), partial(reinforce_pp, baseline="group")
DIFFERENT, SAME, ALONE, NOBODY = [1.0, 0.0], [1.0, 1.0], [1.0, None], [None, None]


@pytest.mark.parametrize(
    ("credit", "teaching"),
    [
        (each(grpo), [DIFFERENT]),
        (whitened(each(grpo)), [DIFFERENT]),
        (grpo_over_batch, [DIFFERENT]),
        (BY_GROUP, [DIFFERENT]),
        (OVER_BATCH, [DIFFERENT, SAME, ALONE]),
        (whitened(OVER_BATCH), [DIFFERENT, SAME, ALONE]),
    ],
)
def test_a_group_is_replaced_only_where_no_batch_would_make_it_teach(
    make_group: Callable[..., Group], credit: BatchCredit, teaching: list[list[float | None]]
) -> None:
    """Of one turn each: credit over the batch would see nothing to compare in a group by itself."""
    groups = [(rewards, make_group(rewards, [1, 1])) for rewards in (DIFFERENT, SAME, ALONE, NOBODY)]
    assert [rewards for rewards, group in groups if could_teach(credit, group)] == teaching
