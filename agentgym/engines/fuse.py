"""Fewer, larger operations in the leaf modules of a loaded model: on a CPU a small model's step is all overhead.

Two rewrites, of instances only, neither of which knows an architecture: an RMS norm in float32 becomes four operations
instead of eight (kept only where it gives the same numbers on a trial input), and projections that read the same input
become one matrix product. Parameters keep their names and are still updated in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


def fuse(model: nn.Module) -> Callable[[], None]:
    """Rewrite `model` (float32 on a CPU) in place; returns what must be called after its weights changed."""
    refreshes: list[Callable[[], None]] = []
    for module in list(model.modules()):
        if type(module).__name__.endswith("RMSNorm"):
            refresh = _fuse_norm(module)
            if refresh is not None:
                refreshes.append(refresh)
        for names in _TOGETHER:
            _fuse_linears([getattr(module, name, None) for name in names])

    def refresh_all() -> None:
        for refresh in refreshes:
            refresh()

    return refresh_all


def _fuse_norm(module: nn.Module) -> Callable[[], None] | None:
    """x / sqrt(|x|^2 + eps n) * (sqrt(n) w); the last factor is kept, so it has to follow the weight."""
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not isinstance(weight, torch.Tensor) or weight.ndim != 1 or not isinstance(eps, float):
        return None
    size = weight.shape[0]
    floor = torch.tensor((eps * size) ** 0.5)
    for offset in (0.0, 1.0):  # Gemma keeps its weights around zero
        gain = (weight.detach() + offset) * size**0.5
        if _same(module, gain, floor, size):
            break
    else:
        return None

    def forward(x: torch.Tensor) -> torch.Tensor:
        return x.div(torch.linalg.vector_norm(x, 2, -1, True).hypot_(floor)).mul_(gain)

    def refresh() -> None:
        torch.add(weight.detach(), offset, out=gain).mul_(size**0.5)

    module.forward = forward
    return refresh


@torch.no_grad()
def _same(module: nn.Module, gain: torch.Tensor, floor: torch.Tensor, size: int) -> bool:
    """Whether the rewrite gives this module's own numbers, for small and large inputs."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, size, generator=generator) * torch.tensor([1e-3, 1.0, 1e2]).view(3, 1, 1)
    mine = x.div(torch.linalg.vector_norm(x, 2, -1, True).hypot_(floor)).mul_(gain)
    return torch.allclose(module(x), mine, rtol=1e-5, atol=1e-6)


class _Shared:
    """The product that several linear modules read their part of, made when the first of them is called."""

    def __init__(self, linears: list[nn.Linear]):
        self.weight = torch.cat([linear.weight.detach() for linear in linears])
        biases = [linear.bias.detach() for linear in linears if linear.bias is not None]
        self.bias = torch.cat(biases) if biases else None
        self.sizes = [linear.out_features for linear in linears]
        self.input: torch.Tensor | None = None
        self.parts: tuple[torch.Tensor, ...] = ()

    def part(self, index: int, x: torch.Tensor) -> torch.Tensor:
        if x is not self.input:
            self.input = x
            self.parts = torch.split_with_sizes(nn.functional.linear(x, self.weight, self.bias), self.sizes, dim=-1)
        part = self.parts[index]
        if index == len(self.sizes) - 1:
            self.input, self.parts = None, ()  # nothing outlives the step
        return part


def _fuse_linears(candidates: list[Any]) -> None:
    linears = [linear for linear in candidates if type(linear) is nn.Linear]
    if len(linears) != len(candidates) or len({linear.bias is None for linear in linears}) != 1:
        return
    if len({linear.in_features for linear in linears}) != 1:
        return
    shared = _Shared(linears)
    first = 0
    for index, linear in enumerate(linears):
        rows = slice(first, first + linear.out_features)
        # the parameters become views of the product's weights, so that copying into them updates it
        linear.weight.data = shared.weight[rows]
        if shared.bias is not None:
            linear.bias.data = shared.bias[rows]
        linear.forward = _reader(shared, index)  # type: ignore[method-assign, assignment]
        first += linear.out_features


def _reader(shared: _Shared, index: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: shared.part(index, x)
