"""A micro-batch: the tensors of some rows, as one forward and backward pass needs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from agentgym.trainers.batch import Row
from agentgym.trainers.packing import Layout
from agentgym.trainers.routing import told_experts
from agentgym.trainers.segments import Stacks, stacks_of


@dataclass(frozen=True, slots=True)
class Micro:
    """ids [B, L] int64 and mask [B, L] bool; of the N masked tokens, in row-major order, the tensors [N].

    Padded: a row each, padding after every real token, so that a causal model needs no attention mask. Packed: B = 1,
    rows one after the other, `positions` [1, L] int64 that begin anew with each, `stacks` for the attention. `row` is
    the index of the row that a token belongs to, 0 to `rows` - 1; `age` is how many versions before the one being
    trained a token was sampled.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    old_logprobs: torch.Tensor
    advantages: torch.Tensor
    row: torch.Tensor
    rows: int
    age: torch.Tensor
    proximal: torch.Tensor | None = None
    positions: torch.Tensor | None = None
    stacks: Stacks | None = None
    experts: torch.Tensor | None = None
    """int16 [B * L, layers, chosen]: the experts that routers are to choose, -1 where they choose themselves."""


def lay_out(
    rows: Sequence[Row],
    device: torch.device,
    layout: Layout = "padded",
    *,
    segments: bool = True,
    routing: bool = False,
) -> Micro:
    """`rows` in descending length. Without `segments` whoever attends has to tell packed rows by their positions.
    With `routing` the rows' experts are laid out, too.

    No rows at all make a micro-batch without a masked token: a pass for the company of other ranks.
    """
    rows = rows or [_nothing()]
    ids, mask, positions = _packed(rows) if layout == "packed" else _padded(rows)
    stacks = stacks_of([len(row.ids) for row in rows], device) if layout == "packed" and segments else None
    owner = np.repeat(np.arange(len(rows)), [row.trained for row in rows])

    def flat(name: str) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([getattr(row, name)[row.mask > 0] for row in rows])).to(device)

    ages = np.concatenate([(row.version - row.versions[row.mask > 0]).astype(np.float32) for row in rows])
    return Micro(
        ids.to(device),
        mask.to(device),
        flat("logprobs"),
        flat("advantages"),
        torch.from_numpy(owner).to(device),
        len(rows),
        torch.from_numpy(ages).to(device),
        flat("proximal") if all(row.proximal is not None for row in rows) else None,
        None if positions is None else positions.to(device),
        stacks,
        _experts(rows, 0 if layout == "packed" else ids.shape[1], device) if routing else None,
    )


def by_own_routers(micro: Micro) -> Micro:
    """For a policy that did not sample, such as a reference: its probabilities are those of its own routing."""
    return micro if micro.experts is None else replace(micro, experts=None)


def _experts(rows: Sequence[Row], width: int, device: torch.device) -> torch.Tensor | None:
    return told_experts([row.experts for row in rows], [len(row.ids) for row in rows], width, device)


def _padded(rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor, None]:
    """Right-padded to the longest row."""
    width = max(len(row.ids) for row in rows)
    ids = np.zeros((len(rows), width), np.int64)
    mask = np.zeros((len(rows), width), np.bool_)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = row.ids
        mask[i, : len(row.ids)] = row.mask > 0
    return torch.from_numpy(ids), torch.from_numpy(mask), None


def _packed(rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    ids = np.concatenate([row.ids for row in rows]).astype(np.int64)
    mask = np.concatenate([row.mask > 0 for row in rows])
    positions = np.concatenate([np.arange(len(row.ids)) for row in rows])
    return torch.from_numpy(ids)[None], torch.from_numpy(mask)[None], torch.from_numpy(positions)[None]


def _nothing() -> Row:
    none = np.zeros(2, np.float32)
    return Row(np.zeros(2, np.int32), none, none, none, np.zeros(2, np.int32))
