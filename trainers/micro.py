"""A micro-batch: the tensors of some rows, as one forward and backward pass needs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from agentgym.trainers.batch import Row


@dataclass(frozen=True, slots=True)
class Micro:
    """ids [B, L] int64 and mask [B, L] bool; of the N masked tokens, in row-major order, the tensors [N].

    Padding lies after every real token, so that a causal model needs no attention mask. `row` is the index of the row
    that a token belongs to, 0 to `rows` - 1; `age` is how many versions before the one being trained it was sampled.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    old_logprobs: torch.Tensor
    advantages: torch.Tensor
    row: torch.Tensor
    rows: int
    age: torch.Tensor
    proximal: torch.Tensor | None = None


def lay_out(rows: Sequence[Row], device: torch.device) -> Micro:
    """Right-padded to the longest row."""
    width = max(len(row.ids) for row in rows)
    ids = np.zeros((len(rows), width), np.int64)
    mask = np.zeros((len(rows), width), np.bool_)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = row.ids
        mask[i, : len(row.ids)] = row.mask > 0
    owner = np.repeat(np.arange(len(rows)), [row.trained for row in rows])

    def flat(name: str) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([getattr(row, name)[row.mask > 0] for row in rows])).to(device)

    ages = np.concatenate([(row.version - row.versions[row.mask > 0]).astype(np.float32) for row in rows])
    return Micro(
        torch.from_numpy(ids).to(device),
        torch.from_numpy(mask).to(device),
        flat("logprobs"),
        flat("advantages"),
        torch.from_numpy(owner).to(device),
        len(rows),
        torch.from_numpy(ages).to(device),
        flat("proximal") if all(row.proximal is not None for row in rows) else None,
    )
