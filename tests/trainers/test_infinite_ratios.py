"""Ratios that overflow: where one is clipped, or its token has no advantage, loss and gradient are numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentgym.protocols import Tokens
from agentgym.trainers.losses.grpo import grpo_loss
from agentgym.trainers.losses.gspo import gspo_loss
from agentgym.trainers.losses.reinforce import reinforce_loss
from agentgym.trainers.losses.sapo import sapo_loss

FAR = -120.0
"""A logprob from which exp overflows to a likely token's, in single precision."""


def losses_and_gradient(
    loss: Callable[..., Any], log_ratio: list[float], advantages: list[float], **args: Any
) -> tuple[list[float], list[float], dict[str, float]]:
    """Each token is a sequence of its own."""
    old = torch.full((len(log_ratio),), FAR)
    logprobs = (old + torch.tensor(log_ratio)).requires_grad_()
    rows = len(log_ratio)
    tokens = Tokens(logprobs, old, torch.tensor(advantages), torch.ones(rows), torch.arange(rows), rows)
    losses, metrics = loss(tokens, **args)
    (found,) = torch.autograd.grad(losses.sum(), logprobs)
    return losses.tolist(), found.tolist(), metrics


@pytest.mark.parametrize("loss", [grpo_loss, gspo_loss])
def test_a_clipped_ratio_may_be_infinite(loss: Callable[..., Any]) -> None:
    given = {"clip_low": 0.25, "clip_high": 0.5}
    found, gradient, metrics = losses_and_gradient(loss, [119.0, 0.0, 119.0], [2.0, 3.0, 0.0], **given)
    assert found == [-3.0, -3.0, 0.0]
    assert gradient == [0.0, -3.0, 0.0]
    assert metrics["clip_frac"] == 1, "what has no advantage is not stopped"


def test_the_dual_clip_stops_an_infinite_ratio() -> None:
    found, gradient, metrics = losses_and_gradient(grpo_loss, [119.0, 0.0], [-2.0, -2.0], dual_clip=3.0)
    assert (found, gradient, metrics["clip_frac"]) == ([6.0, 2.0], [0.0, 2.0], 1)


@pytest.mark.parametrize("loss", [grpo_loss, gspo_loss, reinforce_loss])
def test_an_infinite_ratio_that_nothing_bounds_is_told(loss: Callable[..., Any]) -> None:
    """The step is left out, and the row named: it is no gradient that could be followed."""
    found, _, _ = losses_and_gradient(loss, [119.0, 0.0], [-1.0, -1.0])
    assert found == [float("inf"), 1.0]


def test_without_an_advantage_there_is_nothing_to_follow() -> None:
    assert losses_and_gradient(reinforce_loss, [119.0, 0.0], [0.0, -1.0])[:2] == ([0.0, 1.0], [0.0, 1.0])


@pytest.mark.parametrize("advantage", [1.0, -1.0, 0.0])
def test_the_soft_gate_is_shut(advantage: float) -> None:
    found, gradient, _ = losses_and_gradient(sapo_loss, [119.0], [advantage])
    assert found == pytest.approx([-advantage * 4 / (1.0 if advantage > 0 else 1.05)])
    assert gradient == [0.0]


@pytest.mark.parametrize("loss", [grpo_loss, gspo_loss, reinforce_loss, sapo_loss])
def test_what_is_no_number_is_told_whatever_the_advantage(loss: Callable[..., Any]) -> None:
    for ratio, advantage in ((float("nan"), 0.0), (float("nan"), 1.0), (0.0, float("nan"))):
        found, _, _ = losses_and_gradient(loss, [ratio], [advantage])
        assert math.isnan(found[0])


def written_out(tokens: Tokens, low: float, high: float, dual: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The formula, with torch's own minimum; and what it stops."""
    ratio = (tokens.logprobs - tokens.old_logprobs).exp()
    free, clipped = ratio * tokens.advantages, ratio.clamp(1 - low, 1 + high) * tokens.advantages
    gain, stopped = torch.minimum(free, clipped), free > clipped
    if dual:
        beyond = (tokens.advantages < 0) & (gain < dual * tokens.advantages)
        gain, stopped = torch.where(beyond, dual * tokens.advantages, gain), stopped | beyond
    return -gain * tokens.mask, stopped


numbers = st.tuples(
    st.one_of(st.floats(-60, 60, width=32), st.sampled_from([0.0, 1e-7, -1e-7])),
    st.one_of(st.floats(-8, 8, width=32, allow_subnormal=False), st.sampled_from([0.0, 1.0, -1.0])),
    st.sampled_from([0.0, 1.0]),
)


@given(st.lists(numbers, min_size=1, max_size=8), st.sampled_from([0.0, 3.0]))
def test_where_ratios_are_finite_nothing_has_changed(drawn: list[tuple[float, float, float]], dual: float) -> None:
    log_ratio, advantages, mask = (torch.tensor(column) for column in zip(*drawn, strict=True))
    both = []
    for loss in (lambda tokens: grpo_loss(tokens, dual_clip=dual), lambda tokens: written_out(tokens, 0.2, 0.28, dual)):
        logprobs = log_ratio.clone().requires_grad_()
        losses, told = loss(Tokens(logprobs, torch.zeros_like(mask), advantages, mask))
        (found,) = torch.autograd.grad(losses.sum(), logprobs)
        both.append((losses, found, told))
    (mine, my_gradient, metrics), (theirs, their_gradient, stopped) = both
    assert torch.equal(mine, theirs)
    assert torch.equal(my_gradient, their_gradient)
    assert metrics["clip_frac"] == float((stopped * mask).sum())
