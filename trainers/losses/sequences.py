"""Sums and means over the sequences that tokens belong to."""

from __future__ import annotations

import torch

from agentgym.protocols import Tokens


def per_sequence(values: torch.Tensor, tokens: Tokens, *, mean: bool) -> torch.Tensor:
    """values [N], summed (or averaged) over the masked tokens of each sequence -> [rows]; 0 for one without any."""
    assert tokens.row is not None, "a loss over sequences needs to know which token belongs to which"
    sums = values.new_zeros(tokens.rows).index_add(0, tokens.row, values * tokens.mask)
    if not mean:
        return sums
    counts = values.new_zeros(tokens.rows).index_add(0, tokens.row, tokens.mask.to(values.dtype))
    return sums / counts.clamp(min=1)


def over_sequence(values: torch.Tensor, tokens: Tokens, *, mean: bool) -> torch.Tensor:
    """The same, handed back to each token of the sequence: [N]."""
    return per_sequence(values, tokens, mean=mean)[tokens.row]
