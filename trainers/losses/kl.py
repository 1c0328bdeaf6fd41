"""A penalty on the distance from a reference policy."""

from __future__ import annotations

import torch


def k2_penalty(logprobs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Sum over tokens of (log pi - log pi_ref)^2 / 2: estimator k2 of http://joschu.net/blog/kl-approx.html.

    Both arguments have shape [N]. As a loss on the policy's own samples its gradient is that of KL(pi || pi_ref):
    E_pi[(log pi - log pi_ref) grad log pi], as E_pi[grad log pi] = 0. (k3's, E_pi[(1 - pi_ref / pi) grad log pi],
    is that of KL(pi_ref || pi), which forbids giving up what the reference did often.)
    """
    return 0.5 * (logprobs - reference).square().sum()
