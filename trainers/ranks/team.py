"""The ranks that learn together, as one of them sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch

from agentgym.trainers.ranks.pieces import assembled, mine, padded

BUCKET_BYTES = 64 << 20
"""Of each rank's shards that are gathered at once."""


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """Where the ranks meet: a store that rank 0 keeps."""

    host: str
    port: int
    size: int
    backend: str
    timeout: float
    """Seconds that a rank waits for the others."""
    tp: int = 1
    """Ranks that each block's matrices are cut over."""


@dataclass(frozen=True, slots=True)
class Team:
    """`size` ranks, this one being number `rank`; `mesh` is what weights are sharded over, None where it is alone.

    With tensor parallelism each `tp` ranks that follow each other are a group, `tp_mesh`: they compute the same rows.
    """

    rank: int = 0
    size: int = 1
    mesh: Any = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    tp: int = 1
    tp_mesh: Any = None

    @property
    def groups(self) -> int:
        """Ranks or groups of ranks with rows of their own."""
        return self.size // self.tp

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sums over the ranks, in float64."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        found: list[float] = total.tolist()
        return found

    def told(self, given: Any) -> Any:
        """What rank 0 gives."""
        if self.size == 1:
            return given
        held = [given]
        torch.distributed.broadcast_object_list(held, src=0)
        return held[0]

    def spread(self, full: torch.Tensor | None, like: Any) -> None:
        """Give each rank its part of a tensor that rank 0 has whole; `like` is the sharded one that takes it."""
        from torch.distributed.tensor import DTensor, distribute_tensor

        if not isinstance(like, DTensor):
            if full is not None:
                like.copy_(full)
            if self.size > 1:
                torch.distributed.broadcast(like, src=0)
            return
        whole = torch.empty(like.shape, dtype=like.dtype, device=self.device)
        if full is not None:
            whole.copy_(full)
        if self.tp > 1:  # rank 0 is in one row and one column of the mesh only: all get the whole, and take their part
            torch.distributed.broadcast(whole, src=0)
            like.to_local().copy_(mine(whole, like))
            return
        like.to_local().copy_(distribute_tensor(whole, like.device_mesh, like.placements).to_local())

    def gather(self, shards: Mapping[str, Any], dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
        """Whole tensors on rank 0, nothing elsewhere: the shards of some at once, as one message.

        `dtype`: what floating-point ones are turned into before they travel.
        """
        from agentgym.trainers.weights.buckets import buckets_of

        found: dict[str, torch.Tensor] = {}
        with torch.no_grad():
            local = {name: padded(shard).to(dtype or shard.dtype) for name, shard in shards.items()}
            for bucket in buckets_of(local, BUCKET_BYTES):
                pieces = self._collect(torch.cat([local[name] for name in bucket.names]))
                at = 0
                for name in bucket.names if self.rank == 0 else ():
                    size = local[name].numel()
                    parts = [given[at : at + size] for given in pieces]
                    found[name] = assembled(parts, shards[name], self.tp)
                    at += size
        return found

    def _collect(self, mine: torch.Tensor) -> list[torch.Tensor]:
        """The same of every rank, on rank 0."""
        pieces = [torch.empty_like(mine) for _ in range(self.size)] if self.rank == 0 else None
        torch.distributed.gather(mine, pieces, dst=0)
        return pieces or []

    def leave(self) -> None:
        """A team of one has a process group, too: another could not be made in this process."""
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def join(rendezvous: Rendezvous, rank: int, device: torch.device, store: Any = None) -> Team:
    """Become rank `rank` of a team; returns when all have come. Rank 0 brings the store that it keeps."""
    from torch.distributed.device_mesh import init_device_mesh

    dist: Any = torch.distributed
    patience = timedelta(seconds=rendezvous.timeout)
    if store is None:
        store = dist.TCPStore(rendezvous.host, rendezvous.port, rendezvous.size, is_master=False, timeout=patience)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(rendezvous.backend, store=store, rank=rank, world_size=rendezvous.size, timeout=patience)
    size, tp = rendezvous.size, rendezvous.tp
    if tp == 1:
        return Team(rank, size, init_device_mesh(device.type, (size,)), device)
    mesh = init_device_mesh(device.type, (size // tp, tp), mesh_dim_names=("fsdp", "tp"))
    return Team(rank, size, mesh["fsdp"], device, tp, mesh["tp"])


def keep_store(size: int, host: str, timeout: float) -> Any:
    """The store of a rendezvous, on a free port."""
    dist: Any = torch.distributed
    patience = timedelta(seconds=timeout)
    return dist.TCPStore(host, 0, size, is_master=True, timeout=patience, wait_for_workers=False)
