"""Rows before they are trained: the proximal policy, the KL as a cost, M2PO's selection."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from agentgym.config import load_config
from agentgym.trainers.batch import Row
from agentgym.trainers.learner import Learner, LearnerOptions
from agentgym.trainers.policy import Policy
from agentgym.trainers.preparation import Preparation, make_preparation, penalty_to_go, second_moment
from tests.trainers.rows import rows, tiny


def test_penalties_to_go_by_hand() -> None:
    given = np.array([1.0, 2.0, -4.0], np.float32)
    assert penalty_to_go(given, 1.0).tolist() == [-1.0, -2.0, -4.0]
    assert penalty_to_go(given, 0.5).tolist() == [1.0, 0.0, -4.0]
    assert penalty_to_go(given, 0.0).tolist() == given.tolist()
    assert penalty_to_go(given[:0], 1.0).tolist() == []


def test_the_penalty_of_a_row_is_taken_from_its_advantages_and_reaches_over_the_tools_answers() -> None:
    learner = Learner(tiny(), LearnerOptions())
    learner.reference = Policy(tiny(seed=1))
    batch = rows(3)
    found, metrics = Preparation(kl=0.5)(batch, learner)
    held = learner.logprobs(batch, reference=True)
    distances = [(row.logprobs - h)[row.mask > 0] for row, h in zip(batch, held, strict=True)]
    for before, after, distance in zip(batch, found, distances, strict=True):
        mine = before.mask > 0
        to_go = np.cumsum(distance[::-1])[::-1]
        np.testing.assert_allclose(after.advantages[mine], before.advantages[mine] - 0.5 * to_go, rtol=1e-5, atol=1e-5)
        assert (after.advantages[~mine] == 0).all()
    mean = np.concatenate(distances).mean()
    assert metrics["kl_ref"] == pytest.approx(mean, rel=1e-5)
    assert (batch[0].advantages == rows(3)[0].advantages).all(), "the rows that were given are left as they were"


def test_the_expected_gradient_of_the_penalty_is_that_of_the_divergence_of_whole_rows() -> None:
    """Two tokens of a vocabulary of two, the second's distribution depends on the first: all four rows, enumerated."""
    torch.manual_seed(0)
    first, second = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((2,), (2, 2)))
    held = [torch.randn(shape, dtype=torch.float64).log_softmax(-1) for shape in ((2,), (2, 2))]
    policy = first.log_softmax(-1), second.log_softmax(-1)
    divergence, estimate = torch.zeros(()), torch.zeros(())
    for a, b in itertools.product(range(2), repeat=2):
        logprobs = torch.stack([policy[0][a], policy[1][a, b]])
        apart = (logprobs - torch.stack([held[0][a], held[1][a, b]])).detach()
        chance = logprobs.sum().exp()
        divergence = divergence + chance * (logprobs.sum() - held[0][a] - held[1][a, b])
        to_go = torch.from_numpy(penalty_to_go(apart.numpy(), 1.0))
        estimate = estimate + chance.detach() * (logprobs * to_go).sum()
    for parameter in (first, second):
        (true,) = torch.autograd.grad(divergence, parameter, retain_graph=True)
        (mine,) = torch.autograd.grad(estimate, parameter, retain_graph=True)
        assert torch.allclose(mine, true, atol=1e-6)  # penalties are in single precision


def test_the_proximal_policy_is_computed_where_later_minibatches_need_it() -> None:
    batch = rows(4)
    prepare = make_preparation(load_config(None, ["trainer.loss=decoupled"]))
    learner = Learner(tiny(), LearnerOptions(minibatches=2))
    found, _ = prepare(batch, learner)
    for row, logprobs in zip(found, learner.logprobs(batch), strict=True):
        assert row.proximal is not None
        assert (row.proximal == logprobs).all()
    assert prepare(batch, Learner(tiny(), LearnerOptions()))[0] == batch, "one minibatch is its own proximal policy"
    assert Preparation()(batch, learner) == (batch, {})
    assert Preparation("recompute", 0.04, 0.1)([], learner)[0] == []


def row_of(gaps: list[float], mask: list[float]) -> Row:
    zeros = np.zeros(len(gaps), np.float32)
    ids = np.zeros(len(gaps), np.int32)
    return Row(ids, np.array(mask, np.float32), zeros, zeros + 1, ids, proximal=np.array(gaps, np.float32))


def test_m2po_drops_the_fewest_tokens_over_the_whole_batch() -> None:
    # squares 1, 0.25, 0.01, 0.04 and one that is not trained: the mean of all four is 0.325, of three 0.1
    batch = [row_of([1.0, 0.1, 9.0], [1, 1, 0]), row_of([-0.5, 0.2], [1, 1])]
    found, dropped = second_moment(batch, 0.1001)
    assert dropped == 1
    assert [row.advantages.tolist() for row in found] == [[0, 1, 1], [1, 1]]
    assert [row.trained for row in found] == [2, 2], "they stay in the denominator"
    found, dropped = second_moment(batch, 0.03)
    assert [row.advantages.tolist() for row in found] == [[0, 1, 1], [0, 1]]
    assert second_moment(batch, 0.001)[1] == 4
    assert second_moment(batch, 1.0)[1] == 0


def test_m2po_against_the_weights_that_the_step_begins_with() -> None:
    learner = Learner(tiny(), LearnerOptions())
    batch = [replace(r, logprobs=lp) for r, lp in zip(rows(4), learner.logprobs(rows(4)), strict=True)]
    far = np.flatnonzero(batch[0].mask)[0]
    batch[0].logprobs[far] -= 3.0
    found, metrics = make_preparation(load_config(None, ["trainer.loss=m2po"]))(batch, learner)
    assert found[0].advantages[far] == 0
    assert metrics["m2_dropped"] == pytest.approx(1 / sum(row.trained for row in batch))
    assert all(row.proximal is None for row in found)
