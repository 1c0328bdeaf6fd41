"""The clipped token loss, computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from agentgym.protocols import Tokens
from agentgym.trainers.losses import k2_penalty, supervised_loss
from agentgym.trainers.losses.grpo import grpo_loss


def tensors(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_hand_computed() -> None:
    ratio = tensors(1.5, 1.5, 0.5, 0.5, 1.0)
    advantage = tensors(1.0, -1.0, 1.0, -1.0, 2.0)
    loss, metrics = grpo_loss(Tokens(ratio.log(), torch.zeros(5).double(), advantage, torch.ones(5).double()))
    # min(1.5, 1.28) + min(-1.5, -1.28) + min(.5, .8) + min(-.5, -.8) + 2
    assert float(loss) == pytest.approx(-(1.28 - 1.5 + 0.5 - 0.8 + 2.0))
    assert metrics["clip_frac"] == 2
    assert metrics["is_ratio/max"] == pytest.approx(1.5)


def test_masked_tokens_carry_neither_loss_nor_gradient() -> None:
    logprobs = tensors(-1.0, -2.0).requires_grad_()
    loss, _ = grpo_loss(Tokens(logprobs, tensors(-1.0, -2.0), tensors(1.0, 1.0), tensors(1.0, 0.0)))
    loss.backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [-1.0, 0.0]


def test_clipped_tokens_have_no_gradient() -> None:
    logprobs = tensors(math.log(2.0), math.log(0.5)).requires_grad_()
    loss, _ = grpo_loss(Tokens(logprobs, tensors(0.0, 0.0), tensors(1.0, -1.0), tensors(1.0, 1.0)))
    loss.backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [0.0, 0.0]


def test_supervised_is_weighted_cross_entropy() -> None:
    loss, _ = supervised_loss(Tokens(tensors(-1.0, -3.0), tensors(0, 0), tensors(1.0, 0.5), tensors(1, 1)))
    assert float(loss) == pytest.approx(2.5)


def test_k2_is_half_the_squared_distance_and_pulls_towards_the_reference() -> None:
    logprobs = tensors(-1.0, -2.0, -3.0).requires_grad_()
    penalty = k2_penalty(logprobs, tensors(-1.5, -2.0, -1.0))
    penalty.backward()
    assert penalty.item() == pytest.approx(0.5 * (0.25 + 0.0 + 4.0))
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [0.5, 0.0, -2.0]


def test_the_expected_gradient_of_k2_is_that_of_the_divergence() -> None:
    logits, reference = tensors(0.3, -1.0, 0.7).requires_grad_(), tensors(0.1, 0.2, -0.5).log_softmax(-1)
    policy = logits.log_softmax(-1)
    # the expectation over the policy's own samples, by enumeration
    estimate = sum(p.detach() * k2_penalty(lp, r) for p, lp, r in zip(policy.exp(), policy, reference, strict=True))
    (mine,) = torch.autograd.grad(estimate, logits, retain_graph=True)
    (true,) = torch.autograd.grad((policy.exp() * (policy - reference)).sum(), logits)
    assert torch.allclose(mine, true)
