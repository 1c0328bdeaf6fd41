"""What a learner minimises on a micro-batch: a loss on its tokens, and the distance from a reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from agentgym.protocols import Loss, Tokens
from agentgym.trainers.losses import k2_penalty
from agentgym.trainers.micro import Micro


@dataclass(frozen=True, slots=True)
class Objective:
    """`loss` + `kl` * k2, summed over tokens. `temperature` is the one that the tokens were sampled at."""

    loss: Loss
    temperature: float = 1.0
    kl: float = 0.0

    def __call__(self, policy: Any, reference: Any, micro: Micro) -> tuple[torch.Tensor, dict[str, float]]:
        """The sum (a scalar with a gradient) and sums of metrics. `reference` is used where there is a `kl`."""
        logprobs, entropy = policy(micro, self.temperature)
        tokens = Tokens(
            logprobs=logprobs,
            old_logprobs=micro.old_logprobs,
            advantages=micro.advantages,
            mask=torch.ones_like(logprobs),
            row=micro.row,
            rows=micro.rows,
        )
        value, metrics = self.loss(tokens)
        if self.kl:
            distance = self._distance(reference, micro, logprobs)
            value = value + self.kl * distance
            metrics["kl_ref"] = float(distance.detach())
        with torch.no_grad():
            metrics["entropy"] = float(entropy.sum())
            apart = (logprobs - micro.old_logprobs).abs()
            metrics["logp_diff/max"] = float(apart.max()) if len(apart) else 0.0
        return value, metrics

    def _distance(self, reference: Any, micro: Micro, logprobs: torch.Tensor) -> torch.Tensor:
        """k2 from the reference, summed over tokens."""
        with torch.no_grad():
            held, _ = reference(micro, self.temperature)
        return k2_penalty(logprobs, held)

    def nothing(self, policy: Any, reference: Any, micro: Micro) -> torch.Tensor:
        """0, by the same passes: what a rank without rows does for the company of the others."""
        value: torch.Tensor = policy(micro, self.temperature)[0].sum()
        if self.kl:
            self._distance(reference, micro, value)
        return value
