"""What a learner has to remember besides its weights, and how it is written: for one rank, and for any number.

One rank writes `learner.pt`. Several write the folder `learner`, each its own shards (torch.distributed.checkpoint).
Either is read by any number of ranks.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from agentgym.trainers.learner import Learner
from agentgym.trainers.lora import adapters

WHOLE, SHARDED, REST = "learner.pt", "learner", "learner.json"
_REFERENCE, _ADAPTER = "reference.", "adapter."


def save_state(learner: Learner, folder: Path) -> None:
    """Write what `load_state` reads. Several ranks call it at once."""
    if learner.team.mesh is None:
        torch.save(learner.state_dict(), folder / WHOLE)
        return
    from torch.distributed.checkpoint.state_dict_saver import save

    save(named_tensors(learner), checkpoint_id=folder / SHARDED)
    if learner.team.rank == 0:
        (folder / REST).write_text(json.dumps(_rest(learner)))


def load_state(learner: Learner, folder: Path) -> None:
    """Go on from what any number of ranks has written. Several ranks call it at once."""
    if not (folder / WHOLE).exists():
        _load_sharded(learner, folder)
        return
    state = torch.load(folder / WHOLE, map_location="cpu", weights_only=True)
    if learner.team.mesh is None:
        learner.load_state_dict(state)
        return
    _restore(learner, state)
    if "reference" in state:
        learner._hold()
    place_tensors(learner, dict(_named(learner, state)))


def named_tensors(learner: Learner) -> dict[str, torch.Tensor]:
    """`optimizer.0.WEIGHT.KEY` for all that optimizers keep of each weight, `reference.WEIGHT` for the reference."""
    found: dict[str, torch.Tensor] = {}
    for i, name, parameter in _parameters(learner):
        for key, value in learner.optimizers[i].state[parameter].items():
            found[f"optimizer.{i}.{name}.{key}"] = torch.as_tensor(value)
    found.update((_ADAPTER + name, p) for name, p in adapters(learner.model.named_parameters()).items())
    found.update((_REFERENCE + name, p) for name, p in _reference(learner))
    return found


@torch.no_grad()
def place_tensors(learner: Learner, given: Mapping[str, torch.Tensor]) -> None:
    """Take whole tensors, or ones that are sharded like the weights, as `named_tensors` names them."""
    for i, name, parameter in _parameters(learner):
        prefix = f"optimizer.{i}.{name}."
        state = learner.optimizers[i].state[parameter]
        fused = learner.optimizers[i].param_groups[0].get("fused")
        for key in [key for key in given if key.startswith(prefix)]:
            value = _like(parameter, given[key])
            # a fused kernel counts its steps where the weights are
            state[key.removeprefix(prefix)] = value.to(parameter.device) if fused else value
    for prefix, weights in (
        (_REFERENCE, _reference(learner)),
        (_ADAPTER, list(adapters(learner.model.named_parameters()).items())),
    ):
        for name, parameter in weights:
            parameter.copy_(_like(parameter, given[prefix + name]))


def _like(parameter: Any, given: Any) -> Any:
    if not hasattr(parameter, "device_mesh") or hasattr(given, "device_mesh") or given.shape != parameter.shape:
        return given  # a count of steps is nothing to be sharded
    from torch.distributed.tensor import distribute_tensor

    whole = given.to(parameter.device)
    return distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)


def _parameters(learner: Learner) -> Iterator[tuple[int, str, Any]]:
    """(optimizer, name, weight) of all that is trained, in the optimizers' own order."""
    names = {id(p): name for name, p in learner.model.named_parameters()}
    for i, optimizer in enumerate(learner.optimizers):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                yield i, names[id(parameter)], parameter


def _named(learner: Learner, state: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of one rank's `state_dict` under the names of `named_tensors`."""
    counts: dict[int, int] = {}
    for i, name, _ in _parameters(learner):
        place = counts.get(i, 0)
        counts[i] = place + 1
        for key, value in state["optimizers"][i]["state"].get(place, {}).items():
            yield f"optimizer.{i}.{name}.{key}", torch.as_tensor(value)
    for name, value in state.get("reference", {}).items():
        yield _REFERENCE + name, value
    for name, value in state.get("adapters", {}).items():
        yield _ADAPTER + name, value


def _load_sharded(learner: Learner, folder: Path) -> None:
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load

    reader = FileSystemReader(folder / SHARDED)
    held: Mapping[str, Any] = reader.read_metadata().state_dict_metadata
    if any(name.startswith(_REFERENCE) for name in held):
        learner._hold()
    weights: dict[str, Any] = {f"optimizer.{i}.{name}.": p for i, name, p in _parameters(learner)}
    weights.update((_REFERENCE + name, p) for name, p in _reference(learner))
    weights.update((_ADAPTER + name, p) for name, p in adapters(learner.model.named_parameters()).items())
    room: dict[str, Any] = {}
    for name, about in held.items():
        owner: Any = weights.get(name, weights.get(name.rpartition(".")[0] + "."))
        alike = owner is not None and owner.shape == about.size
        room[name] = torch.zeros_like(owner) if alike else torch.zeros(about.size, dtype=about.properties.dtype)
        room[name] = room[name].detach()
    with warnings.catch_warnings():  # that it is read without a process group, which is what is meant
        warnings.simplefilter("ignore", UserWarning)
        load(room, storage_reader=reader, no_dist=learner.team.mesh is None)
    place_tensors(learner, room)
    _restore(learner, json.loads((folder / REST).read_text()))


def _reference(learner: Learner) -> list[tuple[str, Any]]:
    return [] if learner.reference is None else list(learner.reference.model.named_parameters())


def _rest(learner: Learner) -> dict[str, Any]:
    return {"agreement": learner.agreement.state(), "skipped": learner.skipped}


def _restore(learner: Learner, rest: Mapping[str, Any]) -> None:
    learner.agreement.restore(rest["agreement"])
    learner.skips.total = int(rest["skipped"])
