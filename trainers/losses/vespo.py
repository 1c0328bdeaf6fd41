"""VESPO: a smooth weight of the sequence's ratio."""

from __future__ import annotations

import math

import torch

from agentgym.protocols import Tokens
from agentgym.trainers.losses.drift import drift
from agentgym.trainers.losses.sequences import over_sequence

LOWEST, HIGHEST = math.log(1e-8), 20.0
"""Of a sequence's log ratio, so that its weight stays a number."""


def vespo_loss(
    tokens: Tokens, *, k_pos: float = 2.0, lambda_pos: float = 3.0, k_neg: float = 3.0, lambda_neg: float = 2.0
) -> tuple[torch.Tensor, dict[str, float]]:
    """-sg[phi(w_i)] A_t log pi_t of each token [N], w_i = pi(y_i) / pi_old(y_i), the product over the sequence.

    phi(w) = w^k exp(lambda (1 - w)), which is 1 at w = 1 and fades on both sides; k and lambda by the sign of A_t
    (arXiv 2602.10693).
    """
    log_ratio = tokens.logprobs - tokens.old_logprobs
    with torch.no_grad():
        log_w = over_sequence(log_ratio, tokens, mean=False).clamp(LOWEST, HIGHEST)
        better = tokens.advantages >= 0
        k = torch.where(better, k_pos, k_neg)
        fade = torch.where(better, lambda_pos, lambda_neg)
        phi = (k * log_w + fade * (1 - log_w.exp())).exp().to(log_ratio.dtype)
    return -phi * tokens.advantages * tokens.logprobs * tokens.mask, drift(tokens, log_ratio)
