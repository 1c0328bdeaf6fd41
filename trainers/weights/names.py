"""The names that weights have in a checkpoint, where transformers holds them under others."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch

Named = Callable[[Mapping[str, torch.Tensor]], Mapping[str, torch.Tensor]]


def as_they_are(tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    return tensors


def as_saved(model: Any) -> Named:
    """Names of `save_pretrained`: a mixture's experts, one tensor of a layer in memory, are a few of each expert there.
    Servers read checkpoints."""
    return functools.partial(_as_saved, model)


def _as_saved(model: Any, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    from transformers.core_model_loading import revert_weight_conversion

    renamed: Mapping[str, torch.Tensor] = revert_weight_conversion(model, dict(tensors))
    return renamed
