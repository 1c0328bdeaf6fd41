"""What a learner has to remember besides its weights, and how it is written: for one rank, and for any number.

One rank writes `learner.pt`. Several write the folder `learner`, each its own shards (torch.distributed.checkpoint).
Either is read by any number of ranks: by rank 0, a few tensors at a time, which the others take their shards of, for
they may be on machines that do not see the folder.
"""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from agentgym.errors import RunError
from agentgym.trainers.learner import Learner
from agentgym.trainers.lora import adapters

WHOLE, SHARDED, REST = "learner.pt", "learner", "learner.json"
_REFERENCE, _ADAPTER = "reference.", "adapter."
READ_BYTES = 256 << 20
"""Of whole tensors that are in memory at once, where shards are read."""

Kind = tuple[tuple[int, ...], torch.dtype]


def save_state(learner: Learner, folder: Path) -> None:
    """Write what `load_state` reads. Several ranks call it at once, each with a folder of its own or all with one."""
    if learner.team.mesh is None:
        torch.save(learner.state_dict(), folder / WHOLE)
        return
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict_saver import save

    try:
        save(named_tensors(learner), checkpoint_id=folder / SHARDED)
    except CheckpointException as e:
        raise RunError(f"the learner's state cannot be written: {_reasons(e)}") from None
    if learner.team.rank == 0:
        (folder / REST).write_text(json.dumps(_rest(learner)))


def load_state(learner: Learner, folder: Path) -> None:
    """Go on from what any number of ranks has written. Several ranks call it at once; `folder` is rank 0's."""
    team = learner.team
    if team.mesh is None and (folder / WHOLE).exists():
        learner.load_state_dict(torch.load(folder / WHOLE, map_location="cpu", weights_only=True))
        return
    stored: _Stored | None = None
    if team.rank == 0:
        stored = _Whole(learner, folder) if (folder / WHOLE).exists() else _Sharded(folder)
    kinds, rest = team.told((stored.kinds, stored.rest) if stored is not None else None)
    if any(name.startswith(_REFERENCE) for name in kinds):
        learner._hold()
    slots = list(_slots(learner, kinds))
    given = stored.tensors([name for name, _ in slots]) if stored is not None else itertools.repeat(None)
    with torch.no_grad():
        for (_, slot), tensor in zip(slots, given, strict=False):
            team.spread(tensor, slot)
    _restore(learner, rest)


def named_tensors(learner: Learner) -> dict[str, torch.Tensor]:
    """`optimizer.0.WEIGHT.KEY` for all that optimizers keep of each weight, `reference.WEIGHT` for the reference."""
    found: dict[str, torch.Tensor] = {}
    for i, name, parameter in _parameters(learner):
        for key, value in learner.optimizers[i].state[parameter].items():
            found[f"optimizer.{i}.{name}.{key}"] = torch.as_tensor(value)
    found.update((_ADAPTER + name, p) for name, p in adapters(learner.model.named_parameters()).items())
    found.update((_REFERENCE + name, p) for name, p in _reference(learner))
    return found


def _slots(learner: Learner, kinds: Mapping[str, Kind]) -> Iterator[tuple[str, Any]]:
    """What takes the stored tensors, as `named_tensors` names them, in one order on every rank: weights, and new
    tensors of the optimizers, sharded as the weights that they are of."""
    weights = {_REFERENCE + name: p for name, p in _reference(learner)}
    weights.update((_ADAPTER + name, p) for name, p in adapters(learner.model.named_parameters()).items())
    if lacking := [name for name in weights if name not in kinds]:
        raise RunError(f"the checkpoint's state of the learner does not have {lacking[0]}: it is of another model")
    trained = {f"optimizer.{i}.{name}": (i, parameter) for i, name, parameter in _parameters(learner)}
    for name, (shape, dtype) in kinds.items():
        owner, _, key = name.rpartition(".")
        if name in weights:
            yield name, weights[name]
        elif owner in trained:
            i, parameter = trained[owner]
            alike = tuple(parameter.shape) == shape  # a count of steps is nothing to be sharded
            optimizer = learner.optimizers[i]
            # a fused kernel counts its steps where the weights are
            place = parameter.device if optimizer.param_groups[0].get("fused") else None
            slot = torch.zeros_like(parameter).detach() if alike else torch.zeros(shape, dtype=dtype, device=place)
            optimizer.state[parameter][key] = slot
            yield name, slot


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


class _Stored(Protocol):
    """A state as it lies on a disk."""

    @property
    def kinds(self) -> Mapping[str, Kind]:
        """Of all its tensors, by name."""

    @property
    def rest(self) -> Mapping[str, Any]:
        """What is no tensor."""

    def tensors(self, names: Sequence[str]) -> Iterator[torch.Tensor]:
        """Whole, in the order of `names`, few of them in memory at once where that can be."""


class _Whole:
    """What one rank wrote. learner: of the same model."""

    def __init__(self, learner: Learner, folder: Path):
        state = torch.load(folder / WHOLE, map_location="cpu", weights_only=True)
        self._tensors = dict(_named(learner, state))
        self.kinds = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in self._tensors.items()}
        self.rest = {name: state[name] for name in _rest(learner)}

    def tensors(self, names: Sequence[str]) -> Iterator[torch.Tensor]:
        return (self._tensors[name] for name in names)


class _Sharded:
    """What several ranks wrote."""

    def __init__(self, folder: Path):
        from torch.distributed.checkpoint.filesystem import FileSystemReader

        self._folder = folder / SHARDED
        held: Mapping[str, Any] = FileSystemReader(self._folder).read_metadata().state_dict_metadata
        self.kinds = {name: (tuple(about.size), about.properties.dtype) for name, about in held.items()}
        self.rest = json.loads((folder / REST).read_text())

    def tensors(self, names: Sequence[str]) -> Iterator[torch.Tensor]:
        some: dict[str, torch.Tensor] = {}
        for name in names:
            some[name] = torch.zeros(self.kinds[name][0], dtype=self.kinds[name][1])
            if sum(tensor.nbytes for tensor in some.values()) >= READ_BYTES:
                yield from self._read(some)
                some = {}
        yield from self._read(some)

    def _read(self, some: dict[str, torch.Tensor]) -> Iterator[torch.Tensor]:
        from torch.distributed.checkpoint.api import CheckpointException
        from torch.distributed.checkpoint.filesystem import FileSystemReader
        from torch.distributed.checkpoint.state_dict_loader import load

        with warnings.catch_warnings():  # that it is read without a process group, which is what is meant
            warnings.simplefilter("ignore", UserWarning)
            try:
                load(dict(some), storage_reader=FileSystemReader(self._folder), no_dist=True)
            except CheckpointException as e:
                raise RunError(f"{self._folder}: cannot be read: {_reasons(e)}") from None
        yield from some.values()


def _reasons(error: Any) -> str:
    """Of torch's CheckpointException, which is no `Exception`."""
    return "; ".join(sorted({f"rank {rank}: {failure[0]}" for rank, failure in error.failures.items()}))


def _reference(learner: Learner) -> list[tuple[str, Any]]:
    return [] if learner.reference is None else list(learner.reference.model.named_parameters())


def _rest(learner: Learner) -> dict[str, Any]:
    return {"agreement": learner.agreement.state(), "skipped": learner.skipped}


def _restore(learner: Learner, rest: Mapping[str, Any]) -> None:
    learner.agreement.restore(rest["agreement"])
    learner.skips.total = int(rest["skipped"])
