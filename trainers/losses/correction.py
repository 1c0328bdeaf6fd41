"""Losses against another policy than the one that sampled, and what that takes to be right."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from agentgym.protocols import Loss, Tokens
from agentgym.trainers.losses.sequences import over_sequence

Kind = Literal["none", "full", "truncate", "mask"]
Level = Literal["token", "sequence", "geometric"]


def correction_weights(tokens: Tokens, kind: Kind, level: Level, low: float, high: float) -> torch.Tensor:
    """What the loss of each token [N] is multiplied by, w_t = pi_prox / pi_old bounded as `kind` says; no gradient.

    full: w. truncate: w clipped to [low, high] (TIS: min(w, high)). mask: w within [low, high], else 0 (IcePop).
    level: a token's own w, or its sequence's: the product of the tokens', or their geometric mean.
    """
    assert tokens.proximal is not None, "a correction needs the proximal policy's logprobs"
    log_weight = (tokens.proximal - tokens.old_logprobs).detach()
    if level != "token":
        log_weight = over_sequence(log_weight, tokens, mean=level == "geometric")
    weight = log_weight.exp()
    if kind == "none":
        return torch.ones_like(weight)
    if kind == "truncate":
        return weight.clamp(low, high)
    if kind == "mask":
        return torch.where((weight >= low) & (weight <= high), weight, torch.zeros_like(weight))
    return weight


def bounded(tokens: Tokens, masked: torch.Tensor) -> Tokens:
    """`tokens` with the ratio 1 where they are `masked` [N] and so far off that it may be infinite: the loss of such a
    one can be masked, but its gradient would be 0 times infinity."""
    far = masked & ((tokens.logprobs - tokens.old_logprobs).detach().abs() > 40.0)
    return replace(tokens, logprobs=torch.where(far, tokens.old_logprobs, tokens.logprobs))


@dataclass(frozen=True, slots=True)
class Corrected:
    """`loss` against the proximal policy, each token times its weight between that policy and the one that sampled.

    With the PPO clip and the full weight it is decoupled PPO (AReaL, arXiv 2505.24298, eq. 5):
    (pi_prox / pi_behav) min(u A, clip(u) A), u = pi / pi_prox. Truncated it is TIS (Yao et al. 2025, "Your efficient RL
    framework secretly brings you off-policy RL training"), masked it is IcePop (Ring-1T, arXiv 2510.18855).
    """

    loss: Loss
    kind: Kind = "full"
    level: Level = "token"
    low: float = 0.0
    high: float = 0.0

    def __call__(self, tokens: Tokens) -> tuple[torch.Tensor, dict[str, float]]:
        """As `loss`, with the metrics `correction/weight` and `correction/cut` (the share that was bounded)."""
        assert tokens.proximal is not None, "a correction needs the proximal policy's logprobs"
        weight = correction_weights(tokens, self.kind, self.level, self.low, self.high)
        seen = bounded(replace(tokens, old_logprobs=tokens.proximal), weight == 0)
        losses, metrics = self.loss(seen)
        metrics["correction/weight"] = float((weight * tokens.mask).sum())
        if self.kind in ("truncate", "mask"):
            whole = correction_weights(tokens, "full", self.level, 0.0, 0.0)
            metrics["correction/cut"] = float(((weight != whole).float() * tokens.mask).sum())
        return torch.where(weight > 0, losses * weight, torch.zeros_like(losses)), metrics


@dataclass(frozen=True, slots=True)
class OffPolicyMask:
    """`loss`, but for the tokens of negative advantage in sequences that the policy has left behind.

    A token counts unless A_t < 0 and the mean over its sequence of log(pi_old / pi) is above `delta` (DeepSeek-V3.2,
    arXiv 2512.02556, eq. 9): what the policy would hardly say any more is no use to learn from as a mistake.
    """

    loss: Loss
    delta: float

    def __call__(self, tokens: Tokens) -> tuple[torch.Tensor, dict[str, float]]:
        """As `loss`, with the metric `off_policy_frac`."""
        with torch.no_grad():
            apart = over_sequence(tokens.old_logprobs - tokens.logprobs, tokens, mean=True)
            left = (tokens.advantages < 0) & (apart > self.delta)
        losses, metrics = self.loss(bounded(tokens, left))
        metrics["off_policy_frac"] = float((left.float() * tokens.mask).sum())
        return torch.where(left, torch.zeros_like(losses), losses), metrics
