"""The clipped loss of PPO with whole sequences as actions, as TRL's RLOOTrainer has it."""

from __future__ import annotations

import torch

from agentgym.protocols import Tokens
from agentgym.trainers.losses.drift import drift
from agentgym.trainers.losses.sequences import over_sequence

HIGHEST = 20.0
"""Of a sequence's log ratio, so that its ratio stays a number."""


def sequence_ppo_loss(
    tokens: Tokens, *, clip_low: float = 0.2, clip_high: float = 0.28
) -> tuple[torch.Tensor, dict[str, float]]:
    """-min(w_i A_t, clip(w_i, 1 - clip_low, 1 + clip_high) A_t) of each token [N], w_i = pi(y_i) / pi_old(y_i).

    w_i is the product of the sequence's ratios: an episode is one action (Ahmadian et al. 2024, arXiv 2402.14740,
    section 3.1). Its gradient is w_i times the *sum* of the tokens' grad log pi; where tokens have advantages of their
    own, each is multiplied by its own. Sequences are averaged by `loss.aggregate = "sequence"`, which is this loss's
    own: the mean over tokens is then the sequence's value and gradient.
    """
    log_ratio = over_sequence(tokens.logprobs - tokens.old_logprobs, tokens, mean=False).detach().clamp(max=HIGHEST)
    length = over_sequence(torch.ones_like(tokens.logprobs), tokens, mean=False)
    # 1 in value; the mean over a sequence has the gradient of the sum of its logprobs
    own = 1 + length * (tokens.logprobs - tokens.logprobs.detach())
    weight = log_ratio.exp()
    free = weight * tokens.advantages
    clipped = weight.clamp(1 - clip_low, 1 + clip_high) * tokens.advantages
    stopped = free > clipped
    loss = -torch.where(stopped, clipped, free * own) * tokens.mask
    return loss, drift(tokens, log_ratio, stopped)
