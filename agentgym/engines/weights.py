"""New weights into a model: all names and shapes are checked before the first tensor is copied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from agentgym.errors import ModelError
from agentgym.weights import WeightUpdate


def load_update(model: Any, update: WeightUpdate) -> None:
    """Copy an update's tensors, or the folder it names, into `model`; raises `ModelError` and changes nothing."""
    if update.kind != "full":
        raise ModelError("weight update: the local engine takes full weights; merge the adapter first")
    if (update.tensors is None) == (update.path is None):
        raise ModelError("weight update: give either tensors or a path")
    tensors = update.tensors if update.tensors is not None else _read_folder(model, str(update.path))
    load_tensors(model, tensors)


def load_tensors(model: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """Copy named tensors into `model`. Of tied weights one name is enough; if all are given they must agree."""
    own: dict[str, torch.Tensor] = model.state_dict()
    problems = [f"unknown tensor {name!r}" for name in tensors if name not in own]
    for names in _tied(own):
        given = [name for name in names if name in tensors]
        if not given:
            problems.append(f"missing tensor {names[0]!r}")
        for name in given:
            if tuple(tensors[name].shape) != tuple(own[name].shape):
                got, want = tuple(tensors[name].shape), tuple(own[name].shape)
                problems.append(f"{name!r} has shape {got}, the model has {want}")
        first = tensors[given[0]] if given else None
        for name in given[1:]:
            other = tensors[name]
            if first is not None and other.data_ptr() != first.data_ptr() and not torch.equal(other, first):
                problems.append(f"{given[0]!r} and {name!r} are tied but differ")
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ModelError(f"weights do not fit {type(model).__name__}: {'; '.join(problems[:8])}{more}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def _tied(own: Mapping[str, torch.Tensor]) -> list[list[str]]:
    """The names of the state dict, those of one storage together."""
    groups: dict[tuple[int, tuple[int, ...]], list[str]] = {}
    for name, tensor in own.items():
        groups.setdefault((tensor.data_ptr(), tuple(tensor.shape)), []).append(name)
    return list(groups.values())


def _read_folder(model: Any, path: str) -> dict[str, torch.Tensor]:
    """The tensors of a saved model, under the names they have in memory (a saved MoE names its experts otherwise)."""
    try:
        saved, info = type(model).from_pretrained(
            path, dtype=model.dtype, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as e:
        raise ModelError(f"{path}: cannot read model weights: {e}") from e
    wrong = {kind: sorted(names) for kind, names in info.items() if kind.endswith("_keys") and names}
    if wrong:
        raise ModelError(f"{path}: weights do not fit {type(model).__name__}: {wrong}")
    state: dict[str, torch.Tensor] = saved.state_dict()
    return state
