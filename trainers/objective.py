"""What a learner minimises on a micro-batch: a loss on its tokens, the distance from a reference, an entropy bonus."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from agentgym.protocols import Loss, Tokens
from agentgym.trainers.losses.aggregate import Aggregate, token_weights
from agentgym.trainers.losses.choice import Anchor
from agentgym.trainers.losses.kl import Estimator, kl_loss
from agentgym.trainers.losses.proximal import approximate
from agentgym.trainers.micro import Micro, by_own_routers


class Evaluated(NamedTuple):
    """Of one micro-batch: the weighted sum of its tokens' losses (a scalar with a gradient, to be divided by the
    aggregate's denominator), sums of metrics over tokens, and which of its rows have a loss that is not finite."""

    value: torch.Tensor
    metrics: dict[str, float]
    bad: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Aim:
    """What is added to a loss, and how tokens are added up: `loss` + `kl` * distance - `entropy` * entropy of each
    token, as `aggregate` weighs them."""

    temperature: float = 1.0
    """That at which the tokens were sampled."""
    kl: float = 0.0
    kl_estimator: Estimator = "k2"
    kl_correct: bool = False
    entropy: float = 0.0
    aggregate: Aggregate = "token"
    length: int = 1
    """The constant of `aggregate = "constant"`."""
    anchor: Anchor = "behaviour"
    """The policy whose logprobs `Tokens.proximal` are to be."""


@dataclass(frozen=True, slots=True)
class Objective:
    """What is minimised: a loss, and what the aim adds to it."""

    loss: Loss
    aim: Aim = field(default_factory=Aim)

    def __call__(self, policy: Any, reference: Any, micro: Micro, done: float = 0.0) -> Evaluated:
        """`reference` is used where there is a `kl`; `done` is the share of the step's minibatches before this one."""
        aim = self.aim
        logprobs, entropy = policy(micro, aim.temperature, entropy_grad=aim.entropy > 0)
        tokens = Tokens(
            logprobs=logprobs,
            old_logprobs=micro.old_logprobs,
            advantages=micro.advantages,
            mask=torch.ones_like(logprobs),
            row=micro.row,
            rows=micro.rows,
            proximal=self._proximal(micro, logprobs.detach(), done),
        )
        losses, metrics = self.loss(tokens)
        if aim.kl:
            distance = kl_loss(tokens, self._held(reference, micro), aim.kl_estimator, correct=aim.kl_correct)
            losses = losses + aim.kl * distance
            metrics["kl_ref"] = float(distance.detach().sum())
        if aim.entropy:
            losses = losses - aim.entropy * entropy
        with torch.no_grad():
            metrics["entropy"] = float(entropy.sum())
            apart = (logprobs - micro.old_logprobs).abs()
            metrics["logp_diff/max"] = float(apart.max()) if len(apart) else 0.0
        value = (losses * token_weights(aim.aggregate, micro.row, micro.rows, aim.length)).sum()
        return Evaluated(value, metrics, () if torch.isfinite(value) else _not_finite(losses, micro))

    def _proximal(self, micro: Micro, current: torch.Tensor, done: float) -> torch.Tensor | None:
        if self.aim.anchor == "behaviour":
            return None
        if self.aim.anchor != "recompute":
            return approximate(self.aim.anchor, micro.old_logprobs, current, micro.age, done)
        if micro.proximal is None and done:
            raise ValueError("after the first minibatch, rows need the logprobs that the step began with (preparation)")
        return current if micro.proximal is None else micro.proximal

    def _held(self, reference: Any, micro: Micro) -> torch.Tensor:
        """The reference's logprobs, [N]."""
        with torch.no_grad():
            held: torch.Tensor = reference(by_own_routers(micro), self.aim.temperature)[0]
        return held

    def nothing(self, policy: Any, reference: Any, micro: Micro) -> torch.Tensor:
        """0, by the same passes: what a rank without rows does for the company of the others."""
        value: torch.Tensor = policy(micro, self.aim.temperature)[0].sum()
        if self.aim.kl:
            self._held(reference, micro)
        return value


def _not_finite(losses: torch.Tensor, micro: Micro) -> tuple[int, ...]:
    """The rows to blame: those with a token whose loss is not finite; all where only their sum is not."""
    found = sorted(set(micro.row[~torch.isfinite(losses)].tolist()))
    return tuple(found) or tuple(range(micro.rows))
