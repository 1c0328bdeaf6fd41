"""Rows that a learner cannot take as they are: above the budget, or such that nothing finite comes of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agentgym.config import load_config
from agentgym.errors import DataError, RunError
from agentgym.report.console import make_reporter
from agentgym.rollout.record import read_trajectories
from agentgym.run_folder import RunFolder
from agentgym.trainers.learner import Learner, LearnerOptions
from agentgym.trainers.losses.grpo import grpo_loss
from agentgym.trainers.session import Session
from tests.trainers.conftest import MakeGroup
from tests.trainers.rows import rows, tiny


def test_a_row_above_the_budget_is_named_and_trained_alone_or_dropped_or_refused() -> None:
    given = [replace(row, name=f"episode-{i}") for i, row in enumerate(rows(6, longest=12))]
    given.append(replace(rows(1, seed=3, longest=80)[0], name="the long one"))
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


def test_the_rows_that_make_a_loss_not_finite_are_named() -> None:
    given = [replace(row, name=f"episode-{i}") for i, row in enumerate(rows(6))]
    given[2].advantages[:] = np.nan
    learner = Learner(tiny(), LearnerOptions(tokens_per_microbatch=1))  # a row a micro-batch
    learner.train(given, grpo_loss, seed=0)
    assert learner.offending == ["episode-2"]
    assert learner.skipped == 1
    learner.train(given[:2], grpo_loss, seed=0)
    assert learner.offending == []
    assert learner.skipped == 1


def test_a_run_keeps_what_made_it_skip_and_stops_after_the_set_number(tmp_path: Path, make_group: MakeGroup) -> None:
    config = load_config(None, {"learner.max_skipped": 1})
    session = Session.__new__(Session)
    session.config, session.folder, session.step = config, RunFolder.create(tmp_path / "run", config), 3
    session.reporter = make_reporter("off")
    session._learner = learner = Learner(tiny(), LearnerOptions())
    group = make_group([1.0, 0.0])
    bad = [replace(row, name="t1", advantages=row.advantages * np.nan) for row in rows(2)]
    learner.train(bad, grpo_loss, seed=0)
    session._check_skipped([group])
    (kept,) = read_trajectories(session.folder.trajectories / "not-finite-00003.jsonl")
    assert kept.id == "t1"
    learner.train(bad, grpo_loss, seed=1)
    with pytest.raises(RunError, match=r"step 3: 2 updates were skipped .*max_skipped = 1.*t1 \(kept in"):
        session._check_skipped([group])
