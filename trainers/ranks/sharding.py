"""A model's weights over the ranks: FSDP2, a shard group for each block and one for the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from agentgym.engines.blocks import blocks_of
from agentgym.trainers.policy import Policy
from agentgym.trainers.ranks.pieces import own
from agentgym.trainers.ranks.team import Team
from agentgym.trainers.ranks.tensor_parallel import cut


def shard(policy: Policy, team: Team, *, trained: bool = True) -> frozenset[str]:
    """Shard a policy whose model is on the meta device. What is in its shards is then to be filled in.

    Returns the names of weights whose gradient is to be summed over the ranks of tensor parallelism.
    """
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    shared = _shared(policy)
    summed: frozenset[str] = cut(policy.model, team) if team.tp > 1 else frozenset()
    # fp32 is what is kept and summed, whatever is computed in
    mixed = MixedPrecisionPolicy(param_dtype=policy.compute, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in blocks_of(policy.model):
        fully_shard(block, mesh=team.mesh, mp_policy=mixed)
    # what is outside of the blocks is needed again when the backward pass begins, if there is one
    fully_shard(policy, mesh=team.mesh, mp_policy=mixed, reshard_after_forward=not trained)
    for module in policy.modules():
        if isinstance(module, FSDPModule):  # gradients are summed: the denominator is that of all ranks already
            module.set_force_sum_reduction_for_comms(True)
            module.set_gradient_divide_factor(1.0)
    policy.to_empty(device=team.device)
    _tie(shared)
    policy.compute = None  # FSDP casts
    return summed


@torch.no_grad()
def fill(model: nn.Module, team: Team, source: nn.Module | None) -> None:
    """Put rank 0's weights and buffers into the shards."""
    given: Mapping[str, torch.Tensor] = dict(_tensors(source)) if source is not None else {}
    for name, tensor in _tensors(model):
        team.spread(given[name] if source is not None else None, tensor)


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _shared(module: nn.Module) -> list[list[tuple[nn.Module, str]]]:
    """The places of each parameter that has several (tied embeddings)."""
    places: dict[int, list[tuple[nn.Module, str]]] = {}
    for owner in module.modules():
        for name, parameter in owner._parameters.items():
            if parameter is not None:
                places.setdefault(id(parameter), []).append((owner, name))
    return [several for several in places.values() if len(several) > 1]


def _tie(shared: list[list[tuple[Any, str]]]) -> None:
    """`to_empty` makes a parameter of its own in each place."""
    for (owner, name), *others in shared:
        for other, its in others:
            setattr(other, its, getattr(owner, name))


@torch.no_grad()
def copy_shards(source: nn.Module, into: nn.Module) -> None:
    """Between models that are sharded alike."""
    for (_, given), (_, taken) in zip(_tensors(source), _tensors(into), strict=True):
        own(taken).copy_(own(given))
