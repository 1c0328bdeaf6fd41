"""Rows that a learner cannot take as they are: above the budget, or such that nothing finite comes of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentgym.errors import DataError
from agentgym.trainers.learner import Learner, LearnerOptions
from agentgym.trainers.losses.grpo import grpo_loss
from tests.trainers.rows import rows, tiny


def test_a_row_above_the_budget_is_named_and_trained_alone_or_dropped_or_refused() -> None:
    given = [replace(row, source=f"episode-{i}") for i, row in enumerate(rows(6, longest=12))]
    given.append(replace(rows(1, seed=3, longest=80)[0], source="the long one"))
    length, shorter = len(given[-1].ids), float(sum(row.trained for row in given[:-1]))
    assert length > 16
    for what, trained in (("alone", shorter + given[-1].trained), ("drop", shorter)):
        told: list[str] = []
        learner = Learner(tiny(), LearnerOptions(tokens_per_microbatch=16, long_rows=what), note=told.append)
        metrics = learner.train(given, grpo_loss, seed=0)
        assert metrics["trained_tokens"] == trained
        assert metrics["rows_above_budget"] == 1
        assert f"the long one ({length} tokens): above learner.tokens_per_microbatch = 16" in told[0]
    learner = Learner(tiny(), LearnerOptions(tokens_per_microbatch=16, long_rows="refuse"))
    with pytest.raises(DataError, match="the long one"):
        learner.train(given, grpo_loss, seed=0)
