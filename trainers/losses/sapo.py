"""SAPO: a soft gate in the place of the clip."""

from __future__ import annotations

import torch

from agentgym.protocols import Tokens
from agentgym.trainers.losses.drift import drift

HIGHEST = 20.0
"""Of a token's log ratio, so that its ratio stays a number; the gate is shut long before."""


def sapo_loss(tokens: Tokens, *, tau_pos: float = 1.0, tau_neg: float = 1.05) -> tuple[torch.Tensor, dict[str, float]]:
    """-(4 / tau) sigmoid(tau (r_t - 1)) A_t of each token [N], r_t = exp(logprobs - old_logprobs), tau > 0.

    tau is tau_pos where A_t > 0, else tau_neg (arXiv 2511.20347): at r = 1 the gradient is that of r A,
    and it fades as the ratio leaves 1, sooner where tau is larger.
    """
    log_ratio = tokens.logprobs - tokens.old_logprobs
    tau = torch.where(tokens.advantages > 0, tau_pos, tau_neg).to(log_ratio.dtype)
    gate = torch.sigmoid(tau * (log_ratio.clamp(max=HIGHEST).exp() - 1)) * 4 / tau
    return -gate * tokens.advantages * tokens.mask, drift(tokens, log_ratio)
