"""Tensors as plain arrays of bytes, which Ray's object store hands to every process of a machine without a copy."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import torch

Encoded = dict[str, tuple["np.ndarray[tuple[int], np.dtype[np.uint8]]", str, tuple[int, ...]]]
"""name -> (bytes, dtype, shape)"""


def encode(tensors: Mapping[str, torch.Tensor]) -> Encoded:
    found: Encoded = {}
    for name, tensor in tensors.items():
        flat = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
        found[name] = flat.numpy(), str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)
    return found


def decode(encoded: Encoded) -> dict[str, torch.Tensor]:
    """Read-only tensors over the same memory."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch has no read-only tensors, and says so
        return {
            name: torch.from_numpy(flat).view(getattr(torch, dtype)).view(shape)
            for name, (flat, dtype, shape) in encoded.items()
        }
