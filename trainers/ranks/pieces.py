"""Which part of a whole tensor each rank holds: FSDP's, of what tensor parallelism has cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def own(tensor: Any) -> torch.Tensor:
    """This rank's part of a tensor."""
    local: torch.Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local


def cut_along(like: Any) -> int | None:
    """The dimension that tensor parallelism cuts it along; None: it has the whole of it on each of its ranks."""
    if like.device_mesh.ndim == 1:
        return None
    placement = like.placements[1]
    return int(placement.dim) if placement.is_shard() else None


def piece(whole: torch.Tensor, like: Any, place: Sequence[int]) -> torch.Tensor:
    """Of `whole`, what the rank at `place` of the mesh (FSDP, then tensor parallelism if there is any) holds, where it
    is sharded as `like`: a view."""
    if (along := cut_along(like)) is not None:
        whole = _chunk(whole, along, like.device_mesh.size(1), place[1])
    return _chunk(whole, 0, like.device_mesh.size(0), place[0])


def _chunk(tensor: torch.Tensor, along: int, parts: int, index: int) -> torch.Tensor:
    """One of `torch.chunk`'s, without making all of them; the last may be empty."""
    size = tensor.shape[along]
    each = -(-size // parts)
    start = min(index * each, size)
    return tensor.narrow(along, start, min(each, size - start))


def mine(whole: torch.Tensor, like: Any) -> torch.Tensor:
    """This rank's."""
    return piece(whole, like, like.device_mesh.get_coordinate())


def gathered(tensor: Any) -> torch.Tensor:
    """The whole of a sharded tensor, on every rank; all ranks of the process group call it at once."""
    if tensor.device_mesh.ndim == 1:
        found: torch.Tensor = tensor.full_tensor()
        return found
    flat = padded(tensor)
    pieces = [torch.empty_like(flat) for _ in range(tensor.device_mesh.size())]
    torch.distributed.all_gather(pieces, flat)
    return assembled(pieces, tensor, tensor.device_mesh.size(1))


def padded(tensor: Any) -> torch.Tensor:
    """This rank's part, flat, as long as the longest of any rank: the first has that."""
    local = tensor.to_local()
    longest = piece(torch.empty(tensor.shape, device="meta"), tensor, (0, 0)).numel()
    flat = torch.zeros(longest, dtype=local.dtype, device=local.device)
    flat[: local.numel()] = local.reshape(-1)
    return flat


def assembled(pieces: Sequence[torch.Tensor], like: Any, tp: int) -> torch.Tensor:
    """The whole, of what `padded` gives on each rank."""
    if like.device_mesh.ndim == 1 and tp == 1:  # one after the other
        return torch.cat(list(pieces))[: like.numel()].view(like.shape).clone()
    whole = torch.empty(like.shape, dtype=pieces[0].dtype, device=pieces[0].device)
    for rank, given in enumerate(pieces):
        part = piece(whole, like, divmod(rank, tp))
        part.copy_(given[: part.numel()].view(part.shape))
    return whole
