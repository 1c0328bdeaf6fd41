"""Cross-entropy in the shape of a loss, for warm starts and rejection-sampling fine-tuning."""

from __future__ import annotations

import torch


def supervised_loss(
    logprobs: torch.Tensor, old_logprobs: torch.Tensor, advantages: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, dict[str, float]]:
    """Cross-entropy, in the shape of a `Loss`: advantages are the tokens' weights, old logprobs are not used."""
    return -(logprobs * advantages * mask).sum(), {}
