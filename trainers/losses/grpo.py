"""The clipped token loss of PPO and GRPO, with DAPO's asymmetric bounds."""

from __future__ import annotations

import torch

from agentgym.protocols import Tokens


def grpo_loss(
    tokens: Tokens, *, clip_low: float = 0.2, clip_high: float = 0.28
) -> tuple[torch.Tensor, dict[str, float]]:
    """-sum_t mask_t min(r_t A_t, clip(r_t, 1 - clip_low, 1 + clip_high) A_t), r_t = exp(logprobs_t - old_logprobs_t).

    The old logprobs are those of the policy that sampled, so the trust region also bounds what staleness may do. The
    sum is to be divided by one global denominator (GRPO, arXiv 2402.03300, eq. 3, with DAPO's token-level sum and
    clip-higher, arXiv 2503.14476). Metrics are sums over tokens.
    """
    advantages, mask = tokens.advantages, tokens.mask
    log_ratio = tokens.logprobs - tokens.old_logprobs
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    gain = torch.minimum(ratio * advantages, clipped * advantages)
    loss = -(gain * mask).sum()
    with torch.no_grad():
        held = ((ratio * advantages) > (clipped * advantages)).float() * mask
        # k3 of http://joschu.net/blog/kl-approx.html: the divergence from the policy that sampled
        kl = ((ratio - 1) - log_ratio) * mask
        metrics = {
            "clip_frac": float(held.sum()),
            "kl_old": float(kl.sum()),
            "is_ratio/max": float((ratio * mask).max()) if len(ratio) else 0.0,
        }
    return loss, metrics
