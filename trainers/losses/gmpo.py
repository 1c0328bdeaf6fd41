"""GMPO: the geometric mean of clipped token ratios."""

from __future__ import annotations

import torch

from agentgym.protocols import Tokens
from agentgym.trainers.losses.drift import drift
from agentgym.trainers.losses.sequences import over_sequence


def gmpo_loss(
    tokens: Tokens, *, clip_low: float = 0.4, clip_high: float = 0.4
) -> tuple[torch.Tensor, dict[str, float]]:
    """-A_t exp(mean over the sequence of c_t) of each token [N] (arXiv 2507.20673).

    c_t = min(l_t, clip(l_t, -clip_low, clip_high)) where A_t > 0, else max(...), l_t = logprobs - old_logprobs: the
    bounds are of the logarithm. Sequences are averaged by `loss.aggregate = "sequence"`, which is this loss's own.
    """
    log_ratio = tokens.logprobs - tokens.old_logprobs
    clipped = log_ratio.clamp(-clip_low, clip_high)
    better = tokens.advantages > 0
    kept = torch.where(better, torch.minimum(log_ratio, clipped), torch.maximum(log_ratio, clipped))
    loss = -over_sequence(kept, tokens, mean=True).exp() * tokens.advantages * tokens.mask
    return loss, drift(tokens, log_ratio, kept != log_ratio)
