"""The distance from a reference policy, estimated on sampled tokens (http://joschu.net/blog/kl-approx.html)."""

from __future__ import annotations

from typing import Literal

import torch

from agentgym.protocols import Tokens

Estimator = Literal["k1", "k2", "k3"]


def kl_estimate(logprobs: torch.Tensor, reference: torch.Tensor, estimator: Estimator) -> torch.Tensor:
    """KL(pi || pi_ref) at each token [N], d = log pi - log pi_ref: k1 = d, k2 = d^2 / 2, k3 = exp(-d) - 1 + d.

    Under samples of pi, k1 and k3 have the divergence as their mean. As *losses* on such samples it is otherwise: the
    gradient of k1 has mean 0; that of k2 is the divergence's own, E[d grad log pi]; that of k3 is KL(pi_ref || pi)'s.
    """
    apart = logprobs - reference
    if estimator == "k1":
        return apart
    return 0.5 * apart.square() if estimator == "k2" else (-apart).exp() - 1 + apart


def kl_loss(tokens: Tokens, reference: torch.Tensor, estimator: Estimator, *, correct: bool) -> torch.Tensor:
    """The estimate as a loss of each token [N]. reference: [N].

    `correct` weighs it by r_t = pi / pi_old, whose gradient is kept for k1 and k3 and not for k2: then, over samples
    of the old policy, the gradient of each is that of KL(pi || pi_ref) (k3: DeepSeek-V3.2, arXiv 2512.02556).
    """
    estimate = kl_estimate(tokens.logprobs, reference, estimator)
    if correct:
        ratio = (tokens.logprobs - tokens.old_logprobs).exp()
        estimate = (ratio.detach() if estimator == "k2" else ratio) * estimate
    return estimate * tokens.mask
