"""Cross-entropy in the shape of a loss, for warm starts and rejection-sampling fine-tuning."""

from __future__ import annotations

import torch

from agentgym.protocols import Tokens


def supervised_loss(tokens: Tokens) -> tuple[torch.Tensor, dict[str, float]]:
    """Cross-entropy, in the shape of a `Loss`: advantages are the tokens' weights, old logprobs are not used."""
    return -(tokens.logprobs * tokens.advantages * tokens.mask).sum(), {}
