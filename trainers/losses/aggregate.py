"""How the losses of tokens become one number: what each counts, and what the sum is divided by.

The denominator is a sum over rows, known before the first micro-batch and added up over ranks: so the gradient does not
depend on how rows are cut into micro-batches or spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from agentgym.trainers.batch import Row

Aggregate = Literal["token", "sequence", "constant"]


def token_weights(how: Aggregate, row: torch.Tensor, rows: int, length: int) -> torch.Tensor:
    """What each of the N tokens counts, [N]: 1; 1 / (the trained tokens of its sequence); or 1 / `length`.

    row: the sequence of each token [N], 0 to `rows` - 1.
    """
    ones = torch.ones(len(row), device=row.device)
    if how == "token":
        return ones
    if how == "constant":
        return ones / length
    return (1 / torch.bincount(row, minlength=rows).clamp(min=1).float())[row]


def denominator(how: Aggregate, rows: Sequence[Row]) -> float:
    """What the weighted sum over `rows` is divided by: their trained tokens, or the number of rows that have any.

    token: every token counts alike (DAPO, arXiv 2503.14476, eq. 8). sequence: every sequence does (GRPO as published,
    arXiv 2402.03300, eq. 3, and GSPO). constant: tokens count alike, whatever the lengths in the batch (Dr.GRPO, arXiv
    2503.20783). A sequence is a row: one path through a trajectory's turns.
    """
    if how == "token":
        return float(sum(row.trained for row in rows))
    return float(sum(row.trained > 0 for row in rows))
