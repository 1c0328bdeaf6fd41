"""Metrics that every loss reports: how far the policy has moved, and how many tokens no longer push it."""

from __future__ import annotations

import torch

from agentgym.protocols import Tokens


@torch.no_grad()
def drift(tokens: Tokens, log_ratio: torch.Tensor, stopped: torch.Tensor | None = None) -> dict[str, float]:
    """Sums over tokens: `clip_frac` of those in `stopped` [N], and `kl_old`, the divergence from the policy that the
    ratios are against (k3 of http://joschu.net/blog/kl-approx.html); and the largest ratio. log_ratio: [N]."""
    ratio, mask = log_ratio.exp(), tokens.mask
    return {
        "clip_frac": 0.0 if stopped is None else float((stopped.float() * mask).sum()),
        "kl_old": float((((ratio - 1) - log_ratio) * mask).sum()),
        "is_ratio/max": float((ratio * mask).max()) if len(ratio) else 0.0,
    }
