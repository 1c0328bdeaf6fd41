"""Named tensors in parts of bounded size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Bucket:
    names: tuple[str, ...]
    bytes: int


def buckets_of(tensors: Mapping[str, torch.Tensor], limit: int) -> list[Bucket]:
    """In order, each of at most `limit` bytes; a tensor that is larger is a bucket of its own."""
    buckets: list[Bucket] = []
    names: list[str] = []
    size = 0
    for name, tensor in tensors.items():
        if names and size + tensor.nbytes > limit:
            buckets.append(Bucket(tuple(names), size))
            names, size = [], 0
        names.append(name)
        size += tensor.nbytes
    if names:
        buckets.append(Bucket(tuple(names), size))
    return buckets
