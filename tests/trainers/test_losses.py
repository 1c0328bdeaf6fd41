"""Every loss, computed by hand: values, gradients, and what must not matter."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from agentgym.protocols import Tokens
from agentgym.trainers.losses import supervised_loss
from agentgym.trainers.losses.cispo import cispo_loss
from agentgym.trainers.losses.correction import Corrected, OffPolicyMask, correction_weights
from agentgym.trainers.losses.dppo import dppo_loss
from agentgym.trainers.losses.gmpo import gmpo_loss
from agentgym.trainers.losses.grpo import grpo_loss
from agentgym.trainers.losses.gspo import gspo_loss
from agentgym.trainers.losses.kl import Estimator, kl_estimate, kl_loss
from agentgym.trainers.losses.proximal import approximate
from agentgym.trainers.losses.reinforce import reinforce_loss
from agentgym.trainers.losses.sapo import sapo_loss
from agentgym.trainers.losses.sequence_ppo import sequence_ppo_loss
from agentgym.trainers.losses.vespo import vespo_loss

ALL = [
    grpo_loss,
    sequence_ppo_loss,
    gspo_loss,
    gmpo_loss,
    cispo_loss,
    sapo_loss,
    vespo_loss,
    dppo_loss,
    reinforce_loss,
    supervised_loss,
]


def tensors(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def ratios(*ratio: float, advantages: tuple[float, ...], old: tuple[float, ...] = (), **more: Any) -> Tokens:
    """Tokens whose ratio to the policy that sampled is `ratio`; `logprobs` are a leaf."""
    before = tensors(*(old or [-1.0] * len(ratio)))
    logprobs = (before + tensors(*ratio).log()).requires_grad_()
    return Tokens(logprobs, before, tensors(*advantages), torch.ones_like(before), **more)


def gradient(loss: Callable[..., Any], tokens: Tokens, **args: Any) -> list[float]:
    (found,) = torch.autograd.grad(loss(tokens, **args)[0].sum(), tokens.logprobs)
    return [round(value, 9) for value in found.tolist()]


def values(loss: Callable[..., Any], tokens: Tokens, **args: Any) -> Any:
    return pytest.approx(loss(tokens, **args)[0].tolist())


# ---- tokens ----


def test_grpo() -> None:
    tokens = ratios(1.5, 1.5, 0.5, 0.5, 1.0, advantages=(1.0, -1.0, 1.0, -1.0, 2.0))
    losses, metrics = grpo_loss(tokens)
    # min(1.5, 1.28), min(-1.5, -1.28), min(.5, .8), min(-.5, -.8), 2
    assert losses.tolist() == pytest.approx([-1.28, 1.5, -0.5, 0.8, -2.0])
    assert metrics["clip_frac"] == 2
    assert metrics["is_ratio/max"] == pytest.approx(1.5)
    # d(r A) / d log pi = r A, and nothing where it is clipped
    assert gradient(grpo_loss, tokens) == [0.0, 1.5, -0.5, 0.0, -2.0]


def test_the_dual_clip_bounds_what_the_other_leaves_open() -> None:
    tokens = ratios(9.0, 2.0, 9.0, advantages=(-1.0, -1.0, 1.0))
    assert grpo_loss(tokens)[0].tolist() == pytest.approx([9.0, 2.0, -1.28])
    losses, metrics = grpo_loss(tokens, dual_clip=3.0)
    assert losses.tolist() == pytest.approx([3.0, 2.0, -1.28])
    assert gradient(grpo_loss, tokens, dual_clip=3.0) == [0.0, 2.0, 0.0]
    assert metrics["clip_frac"] == 2


def test_reinforce() -> None:
    tokens = ratios(1.5, 0.5, advantages=(1.0, -2.0))
    assert reinforce_loss(tokens)[0].tolist() == pytest.approx([-1.5, 1.0])
    assert gradient(reinforce_loss, tokens) == [-1.5, 1.0]


def test_cispo_bounds_the_weight_and_stops_no_token() -> None:
    tokens = ratios(8.0, 2.0, 0.1, advantages=(1.0, 1.0, -1.0))
    losses, metrics = cispo_loss(tokens, low=0.2)
    expected = [-5.0 * (math.log(8) - 1), -2.0 * (math.log(2) - 1), 0.2 * (math.log(0.1) - 1)]
    assert losses.tolist() == pytest.approx(expected)
    assert gradient(cispo_loss, tokens, low=0.2) == [-5.0, -2.0, 0.2]
    assert metrics["clip_frac"] == 2


def test_sapo_is_the_policy_gradient_at_1_and_fades_away_from_it() -> None:
    tokens = ratios(1.0, 1.0, 3.0, advantages=(2.0, -2.0, 1.0))
    # 4 / tau sigmoid(0) = 2 / tau
    gate = 1 / (1 + math.exp(-2.0))
    assert sapo_loss(tokens)[0].tolist() == pytest.approx([-4.0, 4.0 / 1.05, -4.0 * gate])
    # d/dr of the gate is 4 s (1 - s): 1 at r = 1, whatever tau
    assert gradient(sapo_loss, tokens) == [-2.0, 2.0, pytest.approx(-4 * gate * (1 - gate) * 3.0)]


def test_dppo_stops_by_divergence_and_only_outwards() -> None:
    # from 0.01 to 0.04 the ratio is 4 and the divergence 0.03; from 0.5 to 0.8 they are 1.6 and 0.3
    tokens = ratios(
        4.0, 1.6, 1.6, 0.5, 0.5, advantages=(1.0, 1.0, -1.0, -1.0, 1.0), old=tuple(map(math.log, (0.01, *[0.5] * 4)))
    )
    losses, metrics = dppo_loss(tokens)
    assert losses.tolist() == pytest.approx([-4.0, 0.0, 1.6, 0.0, -0.5])
    assert gradient(dppo_loss, tokens) == [-4.0, 0.0, 1.6, 0.0, -0.5]
    assert metrics["clip_frac"] == 2
    divergence = 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2)
    assert dppo_loss(tokens, divergence="kl", delta=divergence - 1e-6)[0].tolist()[1] == 0
    assert dppo_loss(tokens, divergence="kl", delta=divergence + 1e-6)[0].tolist()[1] == pytest.approx(-1.6)


# ---- sequences ----


def two_sequences(advantages: tuple[float, ...] = (1.0, 1.0, -1.0)) -> Tokens:
    """Ratios 2 and 8 in one sequence (geometric mean 4), 0.5 in the other."""
    return ratios(2.0, 8.0, 0.5, advantages=advantages, row=torch.tensor([0, 0, 1]), rows=2)


def test_gspo() -> None:
    tokens = two_sequences()
    wide = {"clip_low": 0.9, "clip_high": 9.0}
    assert gspo_loss(tokens, **wide)[0].tolist() == pytest.approx([-4.0, -4.0, 0.5])
    # of the mean over each sequence: s A / |y| for every token, as eq. 10 has it
    assert gradient(lambda t: (gspo_loss(t, **wide)[0] / tensors(2, 2, 1), {}), tokens) == [-2.0, -2.0, 0.5]
    losses, metrics = gspo_loss(tokens)
    assert losses.tolist() == pytest.approx([-1.0004, -1.0004, 1 - 3e-4])
    assert gradient(gspo_loss, tokens) == [0.0, 0.0, 0.0]
    assert metrics["clip_frac"] == 3


def test_gspo_has_the_gradient_of_the_sequences_own_ratio() -> None:
    tokens = two_sequences()

    def sequence(t: Tokens) -> tuple[torch.Tensor, dict[str, float]]:
        apart = t.logprobs - t.old_logprobs
        return -torch.stack([apart[:2].mean().exp() * 1.0, apart[2].exp() * -1.0]), {}

    wide = {"clip_low": 0.9, "clip_high": 9.0}
    assert gradient(sequence, tokens) == gradient(lambda t: (gspo_loss(t, **wide)[0] / tensors(2, 2, 1), {}), tokens)


def test_gspo_lets_turns_have_advantages_of_their_own() -> None:
    assert gradient(gspo_loss, two_sequences((1.0, -1.0, 0.0)), clip_low=0.9, clip_high=9.0) == [-4.0, 4.0, 0.0]


def test_sequence_ppo() -> None:
    """Products 16 and 0.5, of sequences of two tokens and one."""
    tokens = two_sequences(advantages=(1.0, 1.0, -1.0))
    assert values(sequence_ppo_loss, tokens) == [-1.28, -1.28, 0.8]  # 0.5 is below 0.8
    assert gradient(sequence_ppo_loss, tokens) == [0, 0, 0]
    other = two_sequences(advantages=(-1.0, -1.0, 1.0))
    assert values(sequence_ppo_loss, other) == [16.0, 16.0, -0.5]
    # the mean over the sequence is the product, in value and in gradient
    assert gradient(sequence_ppo_loss, other) == pytest.approx([32.0, 32.0, -0.5])
    mine = torch.tensor([0, 0, 1])
    whole = torch.zeros(2, dtype=torch.float64).index_add(0, mine, other.logprobs - other.old_logprobs).exp()
    (expected,) = torch.autograd.grad((whole * tensors(1.0, -1.0)).sum(), other.logprobs)
    (found,) = torch.autograd.grad((sequence_ppo_loss(other)[0] / tensors(2.0, 2.0, 1.0)).sum(), other.logprobs)
    assert found.tolist() == pytest.approx(expected.tolist())


def test_gmpo() -> None:
    losses, metrics = gmpo_loss(two_sequences())
    # log 2 and log 8 are cut to 0.4; A < 0: max(log 0.5, -0.4) = -0.4
    assert losses.tolist() == pytest.approx([-math.exp(0.4), -math.exp(0.4), math.exp(-0.4)])
    assert metrics["clip_frac"] == 3
    inside = ratios(1.2, 1.0, advantages=(1.0, 1.0), row=torch.tensor([0, 0]), rows=1)
    mean = math.sqrt(1.2)
    # each token gets half of the sequence's ratio, from the loss of both
    assert gradient(gmpo_loss, inside) == pytest.approx([-mean, -mean])


def test_vespo() -> None:
    losses, _ = vespo_loss(two_sequences())
    first = 16.0**2 * math.exp(3 * (1 - 16))
    second = 0.5**3 * math.exp(2 * (1 - 0.5))
    expected = [-first * (math.log(2) - 1), -first * (math.log(8) - 1), second * (math.log(0.5) - 1)]
    assert losses.tolist() == pytest.approx(expected)
    fresh = ratios(1.0, 1.0, advantages=(1.0, -1.0), row=torch.tensor([0, 1]), rows=2)
    assert gradient(vespo_loss, fresh) == [-1.0, 1.0]


# ---- all of them ----


@pytest.mark.parametrize("loss", ALL)
def test_masked_tokens_carry_neither_loss_nor_gradient(loss: Callable[..., Any]) -> None:
    whole = ratios(1.1, 1.2, advantages=(1.0, -1.0), row=torch.tensor([0, 1]), rows=2)
    masked = Tokens(whole.logprobs, whole.old_logprobs, whole.advantages, tensors(1, 0), whole.row, 2)
    assert loss(masked)[0].tolist() == pytest.approx([loss(whole)[0].tolist()[0], 0.0])
    assert gradient(loss, masked)[1] == 0
    assert gradient(loss, masked)[0] == gradient(loss, whole)[0]


@pytest.mark.parametrize("loss", [loss for loss in ALL if loss is not supervised_loss])
def test_on_fresh_samples_all_are_the_policy_gradient(loss: Callable[..., Any]) -> None:
    tokens = ratios(1.0, 1.0, advantages=(0.7, -1.3), row=torch.tensor([0, 1]), rows=2)
    assert gradient(loss, tokens) == pytest.approx([-0.7, 1.3])


def test_supervised_is_weighted_cross_entropy() -> None:
    losses, _ = supervised_loss(Tokens(tensors(-1.0, -3.0), tensors(0, 0), tensors(1.0, 0.5), tensors(1, 1)))
    assert losses.tolist() == [1.0, 1.5]


# ---- other policies ----


def three_policies() -> Tokens:
    """pi / pi_prox = 2, 0.5, 1; pi_prox / pi_old = 1.5, 4, 0.25."""
    old = tensors(-3.0, -3.0, -3.0)
    proximal = old + tensors(1.5, 4.0, 0.25).log()
    logprobs = (proximal + tensors(2.0, 0.5, 1.0).log()).requires_grad_()
    advantages = tensors(1.0, 1.0, -1.0)
    return Tokens(logprobs, old, advantages, tensors(1, 1, 1), torch.tensor([0, 0, 1]), 2, proximal)


def test_decoupled_ppo_has_its_full_weight() -> None:
    losses, metrics = Corrected(grpo_loss)(three_policies())
    # eq. 5: (pi_prox / pi_behav) min(u A, clip(u) A)
    assert losses.tolist() == pytest.approx([-1.5 * 1.28, -4.0 * 0.5, 0.25])
    assert gradient(Corrected(grpo_loss), three_policies()) == [0.0, -2.0, 0.25]
    assert metrics["correction/weight"] == pytest.approx(5.75)
    # unclipped, pi_prox cancels: the ratio to the policy that sampled
    whole = Corrected(reinforce_loss)(three_policies())[0]
    assert whole.tolist() == pytest.approx(reinforce_loss(three_policies())[0].tolist())


def test_corrections_by_kind_and_level() -> None:
    tokens = three_policies()
    assert correction_weights(tokens, "none", "token", 0, 2).tolist() == [1, 1, 1]
    assert correction_weights(tokens, "truncate", "token", 0.5, 2.0).tolist() == pytest.approx([1.5, 2.0, 0.5])
    assert correction_weights(tokens, "mask", "token", 0.5, 2.0).tolist() == pytest.approx([1.5, 0.0, 0.0])
    assert correction_weights(tokens, "full", "sequence", 0, 0).tolist() == pytest.approx([6.0, 6.0, 0.25])
    assert correction_weights(tokens, "full", "geometric", 0, 0).tolist() == pytest.approx([6**0.5, 6**0.5, 0.25])
    losses, metrics = Corrected(grpo_loss, "mask", "token", 0.5, 2.0)(tokens)
    assert losses.tolist() == pytest.approx([-1.5 * 1.28, 0.0, 0.0])
    assert metrics["correction/cut"] == 2


def test_a_masked_token_that_is_infinitely_far_leaves_the_others_alone() -> None:
    tokens = three_policies()
    assert tokens.proximal is not None
    far = Tokens(
        tokens.logprobs,
        tokens.old_logprobs,
        tokens.advantages,
        tokens.mask,
        None,
        0,
        tokens.proximal + tensors(0, 900, 0),
    )
    losses, _ = Corrected(grpo_loss, "mask", "token", 0.5, 5.0)(far)
    assert losses.tolist() == pytest.approx([-1.5 * 1.28, 0.0, 0.0])


def test_the_off_policy_mask_is_for_mistakes_that_the_policy_has_left_behind() -> None:
    tokens = ratios(0.1, 0.1, 0.1, 2.0, advantages=(1.0, -1.0, -1.0, -1.0), row=torch.tensor([0, 0, 1, 2]), rows=3)
    losses, metrics = OffPolicyMask(reinforce_loss, 0.5)(tokens)
    assert losses.tolist() == pytest.approx([-0.1, 0.0, 0.0, 2.0])
    assert metrics["off_policy_frac"] == 2


def test_the_proximal_policy_between_the_two_that_are_known() -> None:
    behaviour, current = tensors(0.2, 0.2, 0.2).log(), tensors(0.8, 0.8, 0.8).log()
    age = tensors(0.0, 1.0, 3.0)
    for method in ("loglinear", "linear"):
        assert torch.equal(approximate(method, behaviour, current, age, 0.0), current)  # type: ignore[arg-type]
    # half of a step is done: 0, 1 / 1.5 and 3 / 3.5 of the way
    found = approximate("loglinear", behaviour, current, age, 0.5).exp()
    assert found.tolist() == pytest.approx([0.2, 0.2 * 4 ** (2 / 3), 0.2 * 4 ** (6 / 7)])
    found = approximate("linear", behaviour, current, age, 0.5).exp()
    assert found.tolist() == pytest.approx([0.2, 0.2 + 0.6 * 2 / 3, 0.2 + 0.6 * 6 / 7])


# ---- the distance from a reference ----


def test_kl_estimates() -> None:
    logprobs, reference = tensors(-1.0, -2.0), tensors(-1.5, -1.0)
    assert kl_estimate(logprobs, reference, "k1").tolist() == [0.5, -1.0]
    assert kl_estimate(logprobs, reference, "k2").tolist() == [0.125, 0.5]
    assert kl_estimate(logprobs, reference, "k3").tolist() == pytest.approx([math.exp(-0.5) - 0.5, math.exp(1.0) - 2.0])


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_the_mean_of_k1_and_of_k3_is_the_divergence(estimator: Estimator) -> None:
    policy, reference = tensors(0.3, -1.0, 0.7).log_softmax(-1), tensors(0.1, 0.2, -0.5).log_softmax(-1)
    divergence = (policy.exp() * (policy - reference)).sum()
    assert float((policy.exp() * kl_estimate(policy, reference, estimator)).sum()) == pytest.approx(float(divergence))


def expected_gradients(estimator: Estimator, *, correct: bool, fresh: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the loss over all samples of the policy that sampled (itself where `fresh`), and the divergence's."""
    logits, reference = tensors(0.3, -1.0, 0.7).requires_grad_(), tensors(0.1, 0.2, -0.5).log_softmax(-1)
    policy = logits.log_softmax(-1)
    old = policy.detach() if fresh else tensors(0.9, -0.4, -0.2).log_softmax(-1)
    ones = torch.ones_like(old)
    losses = kl_loss(Tokens(policy, old, ones, ones), reference, estimator, correct=correct)
    (mine,) = torch.autograd.grad((old.exp() * losses).sum(), logits, retain_graph=True)
    (true,) = torch.autograd.grad((policy.exp() * (policy - reference)).sum(), logits)
    return mine, true


def test_the_gradients_of_the_estimates_as_losses() -> None:
    mine, true = expected_gradients("k2", correct=False, fresh=True)
    assert torch.allclose(mine, true)
    mine, _ = expected_gradients("k1", correct=False, fresh=True)
    assert torch.allclose(mine, torch.zeros(3, dtype=torch.float64))
    mine, true = expected_gradients("k3", correct=False, fresh=True)
    assert not torch.allclose(mine, true, rtol=0.05)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
@pytest.mark.parametrize("fresh", [True, False])
def test_corrected_each_has_the_gradient_of_the_divergence(estimator: Estimator, fresh: bool) -> None:
    mine, true = expected_gradients(estimator, correct=True, fresh=fresh)
    assert torch.allclose(mine, true)


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("kind", ["mask", "full"])
def test_a_masked_token_far_off_has_no_gradient(kind: Any, level: Any) -> None:
    """Not NaN: the proximal policy all but rules it out, the policy of now does not."""
    logprobs = torch.tensor([-1.0, -1.0], requires_grad=True)
    row = torch.tensor([0, 1])
    old, proximal = torch.tensor([-1.0, -1.0]), torch.tensor([-1.0, -120.0])
    tokens = Tokens(logprobs, old, torch.tensor([1.0, -1.0]), torch.ones(2), row, 2, proximal)
    losses, _ = Corrected(grpo_loss, kind, level, 0.5, 5.0)(tokens)
    losses.sum().backward()
    assert losses.tolist() == [-1.0, 0.0]
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [-1.0, 0.0]


def test_what_is_stopped_or_left_behind_far_off_has_no_gradient() -> None:
    def backward(loss: Callable[..., Any], advantage: float, mine: list[float], old: list[float]) -> list[float]:
        logprobs = torch.tensor(mine).requires_grad_()
        given = torch.full((len(mine),), advantage)
        row = torch.zeros(len(mine), dtype=torch.long)
        losses, _ = loss(Tokens(logprobs, torch.tensor(old), given, torch.ones(len(mine)), row, 1))
        losses.sum().backward()
        assert torch.isfinite(losses).all()
        assert logprobs.grad is not None
        return logprobs.grad.tolist()

    assert backward(dppo_loss, 1.0, [-0.1], [-120.0]) == [0.0]
    assert backward(OffPolicyMask(grpo_loss, 0.5), -1.0, [-0.1, -300.0], [-120.0, -0.1]) == [0.0, 0.0]
