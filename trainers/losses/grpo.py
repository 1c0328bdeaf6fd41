"""The clipped token loss of PPO and GRPO, with DAPO's asymmetric bounds and the dual clip."""

from __future__ import annotations

import torch

from agentgym.protocols import Tokens
from agentgym.trainers.losses.clipped import clip, without
from agentgym.trainers.losses.drift import drift


def grpo_loss(
    tokens: Tokens, *, clip_low: float = 0.2, clip_high: float = 0.28, dual_clip: float = 0.0
) -> tuple[torch.Tensor, dict[str, float]]:
    """-min(r_t A_t, clip(r_t, 1 - clip_low, 1 + clip_high) A_t) of each token [N], r_t = exp(logprobs - old_logprobs).

    PPO (arXiv 1707.06347, eq. 7) as in GRPO (arXiv 2402.03300, eq. 3), with DAPO's clip-higher (arXiv 2503.14476,
    eq. 8). Where the old logprobs are those of the policy that sampled, the trust region also bounds what staleness
    may do. dual_clip: a bound on the ratio where the advantage is negative, which min() leaves without one: the loss
    is then at most `dual_clip` |A_t| (arXiv 1912.09729; INTELLECT-2's two-sided clip, arXiv 2505.07291, is the
    same). 0: none.
    """
    log_ratio = tokens.logprobs - tokens.old_logprobs
    bound, stopped, held = clip(log_ratio, tokens.advantages, clip_low, clip_high, dual_clip)
    ratio = torch.where(held, bound, without(log_ratio, held).exp())
    return -ratio * tokens.advantages * tokens.mask, drift(tokens, log_ratio, stopped)
