"""The experts of a row's tokens, from what its turns tell of theirs; and as the learner's routers are told them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from agentgym.types import Experts, Turn


def experts_of(path: Sequence[Turn]) -> Experts | None:
    """[T, layers, chosen] of the tokens of a path of turns; None where none of them tells any."""
    told = [turn.completion.experts for turn in path if turn.completion.experts is not None]
    if not told:
        return None
    ends = np.cumsum([len(turn.context_ids) + len(turn.completion.ids) for turn in path]).tolist()
    found = np.full((ends[-1], *told[0].shape[1:]), unknown(told[0].dtype), told[0].dtype)
    for turn, end in zip(path, ends, strict=True):
        experts = turn.completion.experts
        if experts is not None and len(experts):  # of the tokens right before its last
            found[end - 1 - len(experts) : end - 1] = experts
    return found


def unknown(dtype: np.dtype[Any]) -> int:
    """The number that stands for no choice."""
    return int(np.iinfo(dtype).max)


def told_experts(
    experts: Sequence[Experts | None], lengths: Sequence[int], width: int, device: torch.device
) -> torch.Tensor | None:
    """Experts of rows laid out one after the other, each filled up to `width` (0: to its own length): int16
    [tokens, layers, chosen], -1 where the router is to choose. None where nothing is told of any row."""
    shape = next((each.shape[1:] for each in experts if each is not None), None)
    if shape is None:
        return None
    parts = []
    for each, length in zip(experts, lengths, strict=True):
        part = np.full((width or length, *shape), -1, np.int16)
        if each is not None:
            part[:length] = np.where(each == unknown(each.dtype), -1, each.astype(np.int16))
        parts.append(part)
    return torch.from_numpy(np.concatenate(parts)).to(device)
