"""GSPO: the ratio of whole sequences."""

from __future__ import annotations

import torch

from agentgym.protocols import Tokens
from agentgym.trainers.losses.clipped import clip, without
from agentgym.trainers.losses.drift import drift
from agentgym.trainers.losses.sequences import over_sequence


def gspo_loss(
    tokens: Tokens, *, clip_low: float = 3e-4, clip_high: float = 4e-4
) -> tuple[torch.Tensor, dict[str, float]]:
    """-min(s_t A_t, clip(s_t, 1 - clip_low, 1 + clip_high) A_t) of each token [N] (arXiv 2507.18071).

    s_i = (pi(y_i) / pi_old(y_i))^(1 / |y_i|) (eq. 7), as GSPO-token has it: s_t = sg[s_i] pi_t / sg[pi_t] (eq. 14), so
    that tokens of a sequence may have advantages of their own. Where they share one, value and gradient are those of
    eq. 5. |y_i| counts the tokens that are trained. Sequences are averaged by `loss.aggregate = "sequence"`, which is
    this loss's own; "constant" with `loss.length = 1` is LUSPO (arXiv 2602.05261). Ratios are close to 1: so are the
    bounds (section 5.1).
    """
    log_ratio = over_sequence(tokens.logprobs - tokens.old_logprobs, tokens, mean=True).detach()
    bound, stopped, held = clip(log_ratio, tokens.advantages, clip_low, clip_high)
    # 1 in value, and the gradient of the token's own logprob
    own = (tokens.logprobs - tokens.logprobs.detach()).exp()
    ratio = torch.where(held, bound, without(log_ratio, held).exp() * own)
    return -ratio * tokens.advantages * tokens.mask, drift(tokens, log_ratio, stopped)
