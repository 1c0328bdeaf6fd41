"""Tensor parallelism: the matrices of each block cut over a few ranks, by the plan that transformers has of the family.

What the plan does not name (norms, embedding, head) each of these ranks computes alike, from the same rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from agentgym.errors import ConfigError, RunError
from agentgym.trainers.policy import Build
from agentgym.trainers.ranks.pieces import cut_along, own
from agentgym.trainers.ranks.team import Team

KEY = "learner.tensor_parallel"
COLUMNS, ROWS = ("colwise", "colwise_gather_output", "colwise_rep"), ("rowwise", "rowwise_split_input", "rowwise_rep")
"""Styles of transformers' plans that cut a linear layer's outputs, and its inputs. All but the first of each have
whole tensors on the other side of it, too."""
SUMMED = "replicated_with_grad_allreduce"
"""Of weights that each rank has whole and uses for its own heads only."""
APART = 0.1
"""Relative difference of a gradient that ranks should have alike."""


def check_cut(model: Any, build: Build, ranks: int, parts: int) -> None:
    """Raises `ConfigError` where this model, whole, cannot be cut into so many."""
    asked, name = f"{KEY} = {parts}", type(model).__name__
    if ranks % parts:
        raise ConfigError(f"{asked} does not divide learner.ranks = {ranks}; set one so that it does")
    if build.lora.rank:
        raise ConfigError(f"{asked} with model.lora_rank = {build.lora.rank}: adapters are not cut; set one of the two")
    if build.compile:
        raise ConfigError(f"{asked} with learner.compile: compiled blocks are not cut; set one of the two")
    text = model.config.get_text_config()
    for key in ("num_attention_heads", "num_key_value_heads"):
        if (count := getattr(text, key, None)) and count % parts:
            raise ConfigError(
                f"{asked} does not divide the {count} {'key/value' if 'key' in key else 'attention'} heads of {name}; "
                "set it to a divisor"
            )
    for place, style, module in _planned(model):
        if style == SUMMED:
            continue
        for weight, along in _cut_of(module, style):
            if weight.shape[along] % parts:
                raise ConfigError(f"{asked} does not divide the {weight.shape[along]} of {place}; set it to a divisor")


def cut(model: Any, team: Team) -> frozenset[str]:
    """Cut a model that is on the meta device. Returns the names of the weights that are whole on each of the ranks,
    but have only a part of their gradient there."""
    from torch.distributed.tensor.parallel import parallelize_module

    summed: set[str] = set()
    for place, style, module in _planned(model):
        if style == SUMMED:
            summed.update(f"{place}.{name}" for name, _ in module.named_parameters())
        else:
            parallelize_module(module, team.tp_mesh, _style(style), src_data_rank=None)
    return frozenset(summed)


def _style(name: str) -> Any:
    from torch.distributed.tensor import Replicate
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

    if name in COLUMNS:
        return ColwiseParallel(output_layouts=None if name == COLUMNS[0] else Replicate())
    return RowwiseParallel(input_layouts=None if name == ROWS[0] else Replicate())


def _cut_of(module: Any, style: str) -> list[tuple[torch.Tensor, int]]:
    """The weights of a layer that are cut, and along which dimension."""
    weights = [module.weight] if module.bias is None or style in ROWS else [module.weight, module.bias]
    return [(weight, 1 if style in ROWS else 0) for weight in weights]


def _planned(model: Any) -> Iterator[tuple[str, str, Any]]:
    """(name, style, module) of all that is to be cut, or summed. Raises `ConfigError` for what we do not know."""
    family, base = type(model).__name__, model.base_model
    plan: dict[str, str] = getattr(base.config, "base_model_tp_plan", None) or {}
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    prefix = next(f"{name}." if name else "" for name, module in model.named_modules() if module is base)
    modules = dict(base.named_modules())
    names = [*modules, *(name for name, _ in base.named_parameters())]
    any_cut = False
    for pattern, style in plan.items():
        like = re.compile(re.escape(pattern).replace(r"\*", "[^.]+"))
        for name in filter(like.fullmatch, names):
            module = modules.get(name)
            if any(module is end for end in ends):
                continue
            known = style == SUMMED or (style in COLUMNS + ROWS and isinstance(module, nn.Linear))
            if not known:
                raise ConfigError(
                    f"{KEY}: transformers' plan of {family} has the style {style!r} for {pattern}, which we cannot do; "
                    f"set {KEY} = 1"
                )
            any_cut = any_cut or style != SUMMED
            yield prefix + name, style, module
    if not any_cut:
        raise ConfigError(f"{KEY}: transformers has no plan of how to cut {family}; set {KEY} = 1")


@torch.no_grad()
def settle(named: Iterable[tuple[str, Any]], summed: frozenset[str], team: Team) -> None:
    """Make gradients of what is not cut whole, and the same on all ranks that have it, to the last bit.

    Raises `RunError` where ranks differ on one that each of them should have whole: then the plan leaves it out.
    """
    group = team.tp_mesh.get_group()
    names: list[str] = []
    squares: list[torch.Tensor] = []
    for name, parameter in named:
        if parameter.grad is None or cut_along(parameter) is not None:
            continue
        local = own(parameter.grad)
        before = local.clone()
        torch.distributed.all_reduce(local, group=group)
        if name not in summed:
            local /= team.tp
            names.append(name)
            squares += [(before - local).square().sum(), local.square().sum()]
    totals = team.sum(torch.stack(squares).tolist()) if squares else []
    least = 1e-8 * sum(totals[1::2])
    for name, apart, whole in zip(names, totals[::2], totals[1::2], strict=True):
        if apart > APART**2 * whole and apart > least:
            raise RunError(
                f"{KEY}: its ranks differ on the gradient of {name}, which transformers' plan of this family leaves "
                f"out; another version of transformers may know better, or set {KEY} = 1"
            )


def parts_of_gradient(parameters: Iterable[Any], team: Team) -> list[torch.Tensor]:
    """This rank's own, each number on one rank only: the first of those that have it."""
    first = team.rank % team.tp == 0
    return [own(p.grad) for p in parameters if p.grad is not None and (first or cut_along(p) is not None)]


@torch.no_grad()
def clip(parameters: list[Any], largest: float, team: Team) -> float:
    """The norm of the whole gradient, which is scaled down where that is above `largest`."""
    norms = [torch.linalg.vector_norm(part).double() for part in parts_of_gradient(parameters, team)]
    mine = float(torch.stack(norms).square().sum()) if norms else 0.0  # one copy from a GPU, not one of each
    norm: float = team.sum([mine])[0] ** 0.5
    if norm > largest:  # as clip_grad_norm_ has it
        for parameter in parameters:
            if parameter.grad is not None:
                own(parameter.grad).mul_(largest / (norm + 1e-6))
    return norm
