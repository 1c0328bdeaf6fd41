"""Losses and gradients that are not finite: no step, a count, the rows to blame, and an end."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agentgym.config import load_config
from agentgym.errors import RunError
from agentgym.protocols import Tokens
from agentgym.run_folder import RunFolder
from agentgym.trainers.batch import Row
from agentgym.trainers.learner import Learner, LearnerOptions
from agentgym.trainers.losses.grpo import grpo_loss
from agentgym.trainers.skips import SkipGuard, Skips
from tests.trainers.rows import rows, tiny


def named(count: int, seed: int = 0) -> list[Row]:
    made = rows(count, seed)
    return [Row(r.ids, r.mask, r.logprobs, r.advantages, r.versions, source=f"0:t/{i}") for i, r in enumerate(made)]


def spoil(row: Row, what: float = math.nan) -> None:
    row.advantages[row.mask > 0] = what


def weights(learner: Learner) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in learner.model.parameters()])


@pytest.mark.parametrize("what", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_takes_its_whole_minibatch_along_and_no_other(what: float) -> None:
    learner = Learner(tiny(), LearnerOptions(minibatches=2, tokens_per_microbatch=40))
    batch = named(8)
    spoil(batch[3], what)
    before = weights(learner)
    metrics = learner.train(batch, grpo_loss, seed=0)
    assert learner.skipped == 1
    assert {row.source for row in learner.skips.rows} == {"0:t/3"}
    assert not torch.equal(weights(learner), before), "the other minibatch is trained"
    assert torch.isfinite(weights(learner)).all()
    assert all(math.isfinite(value) for value in metrics.values())


def test_an_infinite_loss_with_a_finite_gradient_is_no_step() -> None:
    def odd(tokens: Tokens) -> tuple[torch.Tensor, dict[str, float]]:
        return tokens.logprobs + torch.tensor([math.inf] + [0.0] * (len(tokens.logprobs) - 1)), {}

    learner = Learner(tiny(), LearnerOptions())
    before = weights(learner)
    learner.train(named(2), odd, seed=0)
    assert learner.skipped == 1
    assert torch.equal(weights(learner), before)


def test_a_gradient_that_is_not_finite_blames_its_minibatch() -> None:
    learner = Learner(tiny(), LearnerOptions())
    weight = learner.model.get_input_embeddings().weight
    weight.register_hook(lambda grad: grad * math.nan)
    before = weights(learner)
    metrics = learner.train(named(3), grpo_loss, seed=0)
    assert torch.equal(weights(learner), before)
    assert sorted(row.source for row in learner.skips.rows) == ["0:t/0", "0:t/1", "0:t/2"]
    assert math.isfinite(metrics["loss"])
    assert math.isnan(metrics["grad_norm"])


def test_steps_in_a_row_are_counted_from_the_last_one_made() -> None:
    learner = Learner(tiny(), LearnerOptions())
    bad = named(2)
    spoil(bad[0])
    for batch, expected in ((bad, 1), (bad, 2), (named(2, seed=1), 0), (bad, 1)):
        learner.train(batch, grpo_loss, seed=0)
        assert learner.skips.in_a_row == expected
    assert learner.skipped == 3


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", load_config())


def lines(folder: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder.path / "skipped.jsonl").read_text().splitlines()]


def test_the_rows_to_blame_are_written_down_once_each(folder: RunFolder) -> None:
    guard, skips, row = SkipGuard(folder, 3), Skips(), named(1)[0]
    guard.check(skips, 1)
    assert not (folder.path / "skipped.jsonl").exists()
    spoil(row)
    skips.left_out([row])
    guard.check(skips, 2)
    guard.check(skips, 3)
    (written,) = lines(folder)
    assert (written["step"], written["trajectory"]) == (2, "0:t/0")
    assert written["ids"] == row.ids.tolist()
    trained = [a for a, m in zip(written["advantages"], written["mask"], strict=True) if m]
    assert set(trained) == {"nan"}
    assert np.allclose(written["logprobs"], row.logprobs)
    folder.rewind(1)
    assert lines(folder) == []


def test_the_run_ends_when_too_many_were_left_out_and_names_the_file(folder: RunFolder) -> None:
    guard, skips = SkipGuard(folder, 2), Skips()
    skips.left_out(named(1))
    guard.check(skips, 1)
    skips.left_out(named(5))
    with pytest.raises(
        RunError, match=r"last 2 optimizer steps.*max_skipped = 2.*0:t/0, 0:t/1, 0:t/2, \.\.\..*skipped\.jsonl"
    ):
        guard.check(skips, 2)
    assert [row["step"] for row in lines(folder)] == [1, 2, 2, 2, 2, 2]
