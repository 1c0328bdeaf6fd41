"""DPPO: a trust region on the divergence of the distributions, not on the ratio of one sample."""

from __future__ import annotations

from typing import Literal

import torch

from agentgym.protocols import Tokens
from agentgym.trainers.losses.drift import drift


def dppo_loss(
    tokens: Tokens, *, divergence: Literal["tv", "kl"] = "tv", delta: float = 0.15
) -> tuple[torch.Tensor, dict[str, float]]:
    """-M_t r_t A_t of each token [N], r_t = exp(logprobs - old_logprobs) (arXiv 2602.04879, eq. 12).

    M_t is 0 where A_t > 0 and r_t > 1, or A_t < 0 and r_t < 1, and the divergence is above `delta`; else 1. The
    divergence is that of (this token, any other): |mu - pi| (eq. 13), or mu log(mu / pi) + (1 - mu) log((1 - mu) /
    (1 - pi)) (eq. 14), mu the policy that sampled: the paper finds that one anchored elsewhere collapses.
    """
    log_ratio = tokens.logprobs - tokens.old_logprobs
    with torch.no_grad():
        pi, mu = tokens.logprobs.exp(), tokens.old_logprobs.exp()
        if divergence == "tv":
            apart = (mu - pi).abs()
        else:
            rest = 1 - torch.stack([mu, pi]).clamp(max=1 - 1e-6)
            apart = -mu * log_ratio + rest[0] * (rest[0] / rest[1]).log()
        outward = torch.sign(tokens.advantages) * log_ratio > 0
        stopped = outward & (apart > delta)
    # masked before it is raised to a power, too: of an infinite ratio the gradient would be 0 times infinity
    none = torch.zeros_like(log_ratio)
    kept = torch.where(stopped, none, torch.where(stopped, none, log_ratio).exp())
    return -kept * tokens.advantages * tokens.mask, drift(tokens, log_ratio, stopped)
