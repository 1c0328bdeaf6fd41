"""The learner: the gradient does not depend on how rows are cut, and logprobs are the model's own."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch

from agentgym.trainers import logprobs as logprobs_module
from agentgym.trainers.agreement import FEWEST, HELD
from agentgym.trainers.batch import Row
from agentgym.trainers.learner import Learner, LearnerOptions
from agentgym.trainers.losses.grpo import grpo_loss
from tests.trainers.rows import rows, tiny


def gradient(budget: int, monkeypatch: pytest.MonkeyPatch, chunk: int | None = None) -> torch.Tensor:
    if chunk:
        monkeypatch.setattr(logprobs_module, "CHUNK_ELEMENTS", chunk)
    # plain SGD-like reading: keep the gradient that the update saw
    learner = Learner(tiny(), LearnerOptions(lr=1e-9, tokens_per_microbatch=budget, grad_clip=1e9))
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(
        learner.optimizers[0],
        "step",
        lambda: seen.append(torch.cat([p.grad.flatten() for p in learner.model.parameters() if p.grad is not None])),
    )
    learner.train(rows(12), grpo_loss, seed=0)
    return seen[0]


def test_gradient_is_the_same_however_rows_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gradient(10_000, monkeypatch)
    for budget, chunk in ((64, None), (1, None), (10_000, 50 * 7)):
        other = gradient(budget, monkeypatch, chunk)
        assert float((whole - other).norm() / whole.norm()) < 1e-5


def test_logprobs_are_those_of_a_plain_forward() -> None:
    learner = Learner(tiny(), LearnerOptions(temperature=0.7))
    batch = rows(5)
    for row, got in zip(batch, learner.logprobs(batch), strict=True):
        ids = torch.from_numpy(row.ids).long()[None]
        logits = learner.model(ids).logits[0].float() / 0.7
        expected = torch.log_softmax(logits[:-1], -1).gather(1, ids[0, 1:, None])[:, 0].detach().numpy()
        mine = row.mask[1:] > 0
        np.testing.assert_allclose(got[1:][mine], expected[mine], atol=1e-5)
        assert (got[row.mask == 0] == 0).all()


def test_a_gradient_that_is_not_finite_is_skipped_and_counted() -> None:
    learner = Learner(tiny(), LearnerOptions())
    before = [p.detach().clone() for p in learner.model.parameters()]
    bad = rows(2)
    bad[0].advantages[:] = np.nan
    learner.train(bad, grpo_loss, seed=0)
    assert learner.skipped == 1
    assert all(torch.equal(a, b) for a, b in zip(before, learner.model.parameters(), strict=True))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_raises_the_probability_of_what_was_good(optimizer: str) -> None:
    learner = Learner(tiny(), LearnerOptions(lr=5e-3, optimizer=optimizer, minibatches=2))
    batch = rows(8)
    batch = [
        Row(r.ids, r.mask, lp, np.sign(r.ids % 2 - 0.5).astype(np.float32) * r.mask, r.versions)
        for r, lp in zip(batch, learner.logprobs(batch), strict=True)
    ]
    for step in range(5):
        learner.train(batch, grpo_loss, seed=step)
    change = [
        (after - row.logprobs)[row.mask > 0] @ row.advantages[row.mask > 0]
        for row, after in zip(batch, learner.logprobs(batch), strict=True)
    ]
    assert sum(change) > 0


def test_state_round_trip_gives_the_same_next_step() -> None:
    one = Learner(tiny(), LearnerOptions())
    one.train(rows(4), grpo_loss, seed=0)
    two = Learner(tiny(), LearnerOptions())
    two.model.load_state_dict(one.model.state_dict())
    stored = io.BytesIO()
    torch.save(one.state_dict(), stored)
    stored.seek(0)
    two.load_state_dict(torch.load(stored, weights_only=True))
    for learner in (one, two):
        learner.train(rows(4, seed=1), grpo_loss, seed=1)
    for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_reference_holds_the_policy_back_and_is_not_trained() -> None:
    def away(kl: float) -> float:
        learner = Learner(tiny(), LearnerOptions(lr=1e-2, kl=kl))
        learner.hold_here()
        before = [p.clone() for p in learner.reference.parameters()]
        for step in range(10):
            metrics = learner.train(rows(8), grpo_loss, seed=step)
        assert all(torch.equal(p, q) for p, q in zip(learner.reference.parameters(), before, strict=True))
        return metrics.get("kl_ref", 0.0) if kl else 0.0

    assert 0 < away(10.0) < 0.5 * away(0.01)


def agreeing(batch: list[Row]) -> list[Row]:
    """The same reason to move in every row: to say 7 is good, to say 8 is bad."""
    said = [Row(np.full_like(r.ids, 7 + r.ids[0] % 2), r.mask, r.logprobs, r.advantages, r.versions) for r in batch]
    played = Learner(tiny(), LearnerOptions()).logprobs(said)
    paid = [np.where(row.ids == 7, 1.0, -1.0).astype(np.float32) for row in said]
    return [Row(r.ids, r.mask, p, a, r.versions) for r, p, a in zip(said, played, paid, strict=True)]


def moved(learner: Learner, batches: list[list[Row]]) -> tuple[float, list[float]]:
    before = torch.cat([p.detach().flatten().clone() for p in learner.model.parameters()])
    scales = [learner.train(batch, grpo_loss, seed=i)["lr_scale"] for i, batch in enumerate(batches)]
    after = torch.cat([p.detach().flatten() for p in learner.model.parameters()])
    return float((after - before).abs().max()), scales


def test_the_learner_stands_still_until_the_gradients_agree() -> None:
    options = LearnerOptions(lr=1e-3, minibatches=2, agreement=0.5)
    batches = [rows(32, seed=seed) for seed in range(8)]
    noise, scales = moved(Learner(tiny(), options), batches)
    assert scales == [HELD] * 8
    assert noise < 1e-3 * HELD * 2 * 8 * 1.5  # as AdamW may go in 16 steps of 1%
    _, scales = moved(Learner(tiny(), options), [agreeing(batch) for batch in batches])
    assert scales == [HELD] * FEWEST + [1.0] * (8 - FEWEST)


def test_once_reached_agreement_is_not_asked_for_again_and_it_is_kept_with_the_state() -> None:
    options = LearnerOptions(lr=1e-4, minibatches=2, agreement=0.5)
    one, two = Learner(tiny(), options), Learner(tiny(), options)
    moved(one, [agreeing(rows(32, seed=seed)) for seed in range(3)])
    two.load_state_dict(one.state_dict())
    _, scales = moved(two, [agreeing(rows(32, seed=3)), rows(32, seed=4), rows(32, seed=5)])
    assert scales == [HELD, 1.0, 1.0]
    bad = rows(4)
    bad[0].advantages[:] = np.nan
    one.train(bad, grpo_loss, seed=9)
    assert math.isfinite(one.agreement.total)
    one.restart(options)  # another phase
    assert not one.agreement.reached
