"""The policy gradient with importance ratios and no trust region."""

from __future__ import annotations

import torch

from agentgym.protocols import Tokens
from agentgym.trainers.losses.clipped import without
from agentgym.trainers.losses.drift import drift


def reinforce_loss(tokens: Tokens) -> tuple[torch.Tensor, dict[str, float]]:
    """-r_t A_t of each token [N], r_t = exp(logprobs - old_logprobs).

    On fresh samples its gradient is REINFORCE's; on stale ones nothing bounds it, hence M2PO selects tokens
    (`preparation.second_moment`) before it (arXiv 2510.01161).
    """
    log_ratio = tokens.logprobs - tokens.old_logprobs
    # 0 times a ratio that overflows would be no number; one that is none stays what it is
    ratio = without(log_ratio, (tokens.advantages == 0) & (log_ratio > 0)).exp()
    return -ratio * tokens.advantages * tokens.mask, drift(tokens, log_ratio)
