"""CISPO: the importance weight is clipped, and no token's gradient is."""

from __future__ import annotations

import torch

from agentgym.protocols import Tokens
from agentgym.trainers.losses.drift import drift


def cispo_loss(tokens: Tokens, *, low: float = 0.0, high: float = 5.0) -> tuple[torch.Tensor, dict[str, float]]:
    """-sg[clip(r_t, low, high)] A_t log pi_t of each token [N], r_t = exp(logprobs - old_logprobs).

    MiniMax-M1 (arXiv 2506.13585, eq. 4 and 5), whose 1 - eps_low and 1 + eps_high these bounds are; it sets no lower
    one. `high` = 5 is ScaleRL's (arXiv 2510.13786). Nothing stops a token that has moved far.
    """
    log_ratio = tokens.logprobs - tokens.old_logprobs
    ratio = log_ratio.detach().exp()
    weight = ratio.clamp(low, high)
    loss = -weight * tokens.advantages * tokens.logprobs * tokens.mask
    return loss, drift(tokens, log_ratio, weight != ratio)
