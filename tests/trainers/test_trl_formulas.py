"""docs/algorithms.md maps TRL's and AReaL's names to ours: value and gradient of a block are those of their formulas.

The formulas are written out here in padded tensors [B, T], as trl 1.16 (`GRPOTrainer._compute_loss`,
`RLOOTrainer._compute_loss`) and AReaL (`ppo_actor_loss_fn`) have them. Ours go the whole way: credit, rows, learner.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agentgym.config import Config
from agentgym.trainers.batch import Row, build_rows
from agentgym.trainers.credit import make_credit
from agentgym.trainers.learner import Learner, LearnerOptions
from agentgym.trainers.losses import make_loss
from agentgym.trainers.policy import Policy
from agentgym.trainers.preparation import make_preparation
from agentgym.trainers.shaping import shaped
from agentgym.trainers.warm_start import rl_options
from agentgym.types import Floats, Group
from tests.trainers.conftest import trajectory, turn
from tests.trainers.rows import tiny
from tests.trainers.test_algorithms import config_of

REWARDS = ((1.0, 0.0, 0.3, 0.2), (0.0, 2.0, 1.5, 0.1))
LENGTHS = ((3, 6, 2, 5), (4, 1, 7, 3))
PROMPT = 2
SPREAD = 0.3
"""Deviation of log(pi / pi_old)."""
Tensor = torch.Tensor


@dataclass(frozen=True)
class Padded:
    """What TRL computes with. [B, T] each, but for `advantages` [B]; `logps` has a gradient."""

    logps: Tensor
    old: Tensor
    advantages: Tensor
    mask: Tensor
    reference: Tensor

    @property
    def ratio(self) -> Tensor:
        return (self.logps - self.old).exp()

    @property
    def lengths(self) -> Tensor:
        return self.mask.sum(1)

    def clipped(self, ratio: Tensor, low: float = 0.2, high: float = 0.2, delta: float | None = None) -> Tensor:
        """-min(coef_1 A, coef_2 A), as TRL has it."""
        a = self.advantages[:, None]
        bounded = ratio.clamp(1 - low, 1 + high)
        free = ratio if delta is None else ratio.clamp(max=delta)
        return -torch.min(free * a, bounded * a)

    def by_token(self, losses: Tensor) -> Tensor:
        return (losses * self.mask).sum() / self.mask.sum()

    def by_sequence(self, losses: Tensor) -> Tensor:
        return ((losses * self.mask).sum(1) / self.lengths).mean()


def played() -> list[Group]:
    """Two groups of single-turn episodes that differ in reward and length."""
    made, rng = [], np.random.default_rng(3)
    for g, (rewards, lengths) in enumerate(zip(REWARDS, LENGTHS, strict=True)):
        episodes = [
            trajectory([turn(0, None, [1, 2], rng.integers(3, 50, n).tolist())], reward, f"{g}:{i}")
            for i, (reward, n) in enumerate(zip(rewards, lengths, strict=True))
        ]
        made.append(Group(f"{g}:task", f"task{g}", "env", tuple(episodes)))
    return made


def of_rows(rows: Sequence[Row], values: Callable[[Row], Any]) -> Tensor:
    """[B, T] of the completions' tokens."""
    out = torch.zeros(len(rows), max(map(max, LENGTHS)))
    for i, row in enumerate(rows):
        found = torch.as_tensor(values(row))[PROMPT:]
        out[i, : len(found)] = found
    return out


def logps_of(model: Any, rows: Sequence[Row]) -> Tensor:
    """As TRL gets them: a forward pass, log-softmax, those of the tokens."""
    out = torch.zeros(len(rows), max(map(max, LENGTHS)))
    for i, row in enumerate(rows):
        ids = torch.as_tensor(row.ids.astype(np.int64))
        logps = model(ids[None]).logits[0, :-1].log_softmax(-1).gather(1, ids[1:, None])[:, 0]
        out[i, : len(ids) - PROMPT] = logps[PROMPT - 1 :]
    return out


def advantages(scale: str, *, unbiased: bool = True, leave_out: bool = False) -> Tensor:
    """`_generate_and_score_completions` of TRL, on both groups."""
    rewards = torch.tensor(REWARDS)
    n = rewards.shape[1]
    if leave_out:
        return (rewards - (rewards.sum(1, keepdim=True) - rewards) / (n - 1)).flatten()
    apart = rewards - rewards.mean(1, keepdim=True)
    if scale == "group":
        apart = apart / (rewards.std(1, correction=int(unbiased), keepdim=True) + 1e-4)
    if scale == "batch":
        apart = apart / (rewards.std(correction=int(unbiased)) + 1e-4)
    return apart.flatten()


def ours(config: Config, rows: Sequence[Row]) -> tuple[float, Tensor]:
    """The value and the gradient of the only optimizer step of a block, without a step."""
    config.learner.lr, config.learner.grad_clip, config.learner.minibatches = 1e-9, 1e9, 1
    learner = Learner(tiny(), rl_options(config))
    if config.learner.kl:
        learner.reference = Policy(tiny(seed=1))
    seen: list[Tensor] = []
    learner.optimizers[0].step = lambda: seen.append(learner._gradient())  # type: ignore[assignment,method-assign,misc]
    prepared, _ = make_preparation(config)(rows, learner)
    metrics = learner.train(prepared, make_loss(config), seed=0)
    return metrics["loss"], seen[0]


def rows_for(config: Config) -> list[Row]:
    """The block's own advantages on the played groups; what sampled them is some way off the policy of now."""
    groups = played()
    rows = build_rows(groups, shaped(make_credit(config), config)(groups), version=0, max_staleness=0).rows
    rng = np.random.default_rng(1)
    return [
        replace(row, logprobs=((p + rng.normal(scale=SPREAD, size=len(p))) * row.mask).astype(np.float32))
        for row, p in zip(rows, now(rows), strict=True)
    ]


def now(rows: Sequence[Row]) -> list[Floats]:
    """The logprobs of the policy that is trained."""
    return Learner(tiny(), LearnerOptions()).logprobs(rows)


@dataclass(frozen=True)
class Case:
    """A block, the settings that its row adds, and TRL's formula; `theirs` are TRL's advantages [B]."""

    name: str
    block: str
    formula: Callable[[Padded], Tensor]
    theirs: Tensor
    settings: tuple[str, ...] = ()


def gspo(p: Padded) -> Tensor:
    """importance_sampling_level="sequence" with loss_type="grpo": one value a sequence."""
    mean = ((p.logps - p.old) * p.mask).sum(1) / p.lengths
    return p.by_sequence(p.clipped(mean.exp()[:, None].expand_as(p.mask), 3e-4, 4e-4))


def luspo(p: Padded) -> Tensor:
    mean = ((p.logps - p.old) * p.mask).sum(1) / p.lengths
    return (p.clipped(mean.exp()[:, None], 0.2, 0.2) * p.mask).sum(1).mean()


def rloo(p: Padded) -> Tensor:
    """`RLOOTrainer`: the product of the sequence's ratios."""
    whole = ((p.logps - p.old) * p.mask).sum(1).exp()
    return -torch.min(whole * p.advantages, whole.clamp(0.8, 1.2) * p.advantages).mean()


def cispo(p: Padded) -> Tensor:
    return p.by_token(-p.ratio.clamp(max=5.0).detach() * p.advantages[:, None] * p.logps)


def sapo(p: Padded) -> Tensor:
    a = p.advantages[:, None]
    tau = torch.where(a > 0, 1.0, 1.05)
    return p.by_sequence(-torch.sigmoid(tau * (p.ratio - 1)) * 4 / tau * a)


def kl_in_loss(p: Padded) -> Tensor:
    apart = p.reference - p.logps
    kl = (apart.exp() - apart - 1) * p.ratio
    return p.by_token(p.clipped(p.ratio) + 0.5 * kl)


def with_vllm(p: Padded) -> Tensor:
    """`old` is what sampled; the ratio is against the policy of now, and the sequence's weight masked above 3."""
    now = p.logps.detach()
    weight = ((now - p.old) * p.mask).sum(1, keepdim=True).exp()
    weight = weight.masked_fill(weight > 3.0, 0.0)
    return p.by_token(p.clipped((p.logps - now).exp()) * weight)


def token_mask(p: Padded) -> Tensor:
    now = p.logps.detach()
    weight = (now - p.old).exp()
    return p.by_token(p.clipped((p.logps - now).exp()) * weight.masked_fill(weight > 1.1, 0.0))


def areal(p: Padded) -> Tensor:
    """`adv_norm` over the batch's tokens, then decoupled PPO without tokens of a weight above 5 (here 1.1)."""
    count = p.mask.sum()
    given = p.advantages[:, None].expand_as(p.mask)
    mean = (given * p.mask).sum() / count
    scale = (((given - mean).square() * p.mask).sum() / count).sqrt() + 1e-5
    now = p.logps.detach()
    weight = (now - p.old).exp()
    ratio = (p.logps - now).exp()
    normal = (given - mean) / scale
    losses = -torch.min(ratio * normal, ratio.clamp(0.6, 1.4) * normal) * weight
    return p.by_token(torch.where(weight <= 1.1, losses, torch.zeros_like(losses)))


GROUP, CENTRED = advantages("group"), advantages("none")
LOW = "loss.correction_high = 1.1"
CASES = [
    Case("dapo", "trl-default", lambda p: p.by_token(p.clipped(p.ratio)), GROUP),
    Case("bnpo", "trl-default", lambda p: p.by_token(p.clipped(p.ratio)), GROUP),  # of one batch on one device
    Case("grpo", "grpo", lambda p: p.by_sequence(p.clipped(p.ratio)), GROUP),
    Case("dr_grpo", "dr-grpo", lambda p: (p.clipped(p.ratio) * p.mask).sum() / (len(p.mask) * 2048), CENTRED),
    Case("gspo", "gspo", gspo, GROUP),
    Case("luspo", "luspo", luspo, GROUP, ("loss.args = { clip_low = 0.2, clip_high = 0.2 }",)),
    Case("cispo", "cispo", cispo, GROUP),
    Case("sapo", "sapo", sapo, GROUP),
    Case(
        "delta",
        "dual-clip",
        lambda p: p.by_token(p.clipped(p.ratio, delta=1.3)),
        GROUP,
        ("loss.args = { dual_clip = 1.3 }",),
    ),
    Case(
        "scale_rewards=none", "trl-default", lambda p: p.by_token(p.clipped(p.ratio)), CENTRED, ("learner.std = false",)
    ),
    Case("scale_rewards=batch", "liteppo", lambda p: p.by_token(p.clipped(p.ratio)), advantages("batch")),
    Case("sequence_mask", "trl-vllm", with_vllm, GROUP),
    Case("token_mask", "trl-vllm", token_mask, GROUP, ("loss.correction_level = token", LOW)),
    Case("beta", "kl-in-loss", kl_in_loss, GROUP, ("learner.kl = 0.5",)),
    Case("rloo", "rloo", rloo, advantages("none", leave_out=True), ("learner.kl = 0",)),
    Case("areal grpo", "grpo-areal", areal, GROUP, (LOW,)),
    Case("areal drgrpo", "grpo-areal", areal, CENTRED, ("learner.std = false", LOW)),
    Case("areal rloo", "grpo-areal", areal, advantages("none", leave_out=True), ("learner.std = false", LOW)),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_value_and_gradient_are_those_of_the_formula(case: Case, tmp_path: Path) -> None:
    config = config_of(case.block, tmp_path, case.settings)
    rows = rows_for(config)
    value, gradient = ours(config, rows)
    model = tiny()
    with torch.no_grad():
        reference = logps_of(tiny(seed=1), rows)
    deviations = bessel(case.theirs)
    padded = Padded(
        logps=logps_of(model, rows),
        old=of_rows(rows, lambda row: row.logprobs),
        advantages=case.theirs * deviations,
        mask=of_rows(rows, lambda row: row.mask),
        reference=reference,
    )
    loss = case.formula(padded)
    loss.backward()  # type: ignore[no-untyped-call]
    theirs = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert theirs.norm() > 1e-4
    assert value == pytest.approx(float(loss.detach()), rel=1e-3, abs=1e-6)
    assert float((gradient - theirs).norm() / theirs.norm()) < 1e-3


def bessel(theirs: Tensor) -> float:
    """The one difference that the page names: TRL's deviations divide by n - 1, ours by n."""
    for scale in ("group", "batch"):
        if torch.equal(theirs, advantages(scale)):
            n = len(REWARDS[0]) if scale == "group" else len(REWARDS[0]) * len(REWARDS)
            return float((n / (n - 1)) ** 0.5)
    return 1.0


def test_the_samples_are_off_the_policy_far_enough(tmp_path: Path) -> None:
    """Else bounds would bind nowhere and the formulas could not be told apart."""
    rows = rows_for(config_of("trl-default", tmp_path))
    gaps = np.concatenate([(p - row.logprobs)[row.mask > 0] for row, p in zip(rows, now(rows), strict=True)])
    assert (np.exp(gaps) > 1.2).sum() >= 3
    assert (np.exp(gaps) < 0.8).sum() >= 3
