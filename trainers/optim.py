"""Optimizers and schedules by name."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from agentgym.trainers.muon import Muon


def make_optimizers(
    model: nn.Module, kind: str, lr: float, weight_decay: float = 0.0, *, betas: tuple[float, float] = (0.9, 0.95)
) -> list[torch.optim.Optimizer]:
    """AdamW on everything, or Muon (K. Jordan, 2024) on the blocks' matrices and AdamW on the rest.

    On a GPU AdamW is one fused kernel: it holds no copies of the weights besides its states, where the other way takes
    as much memory again as all weights take.
    Every parameter group keeps its peak rate as `peak_lr`, which `set_lr` scales.
    """
    params = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if kind == "adamw":
        return [_adamw([p for _, p in params], lr, weight_decay, betas)]
    matrices = [p for name, p in params if p.ndim == 2 and "embed" not in name and "lm_head" not in name]
    held = {id(p) for p in matrices}
    rest = [p for _, p in params if id(p) not in held]
    made: list[torch.optim.Optimizer] = []
    if matrices:
        made.append(_peak(Muon(matrices, lr=lr, weight_decay=weight_decay)))
    if rest:  # adapters are matrices all
        made.append(_adamw(rest, lr, weight_decay, betas))
    return made


def _adamw(
    params: list[nn.Parameter], lr: float, weight_decay: float, betas: tuple[float, float]
) -> torch.optim.Optimizer:
    fused = True if all(p.is_cuda for p in params) else None
    return _peak(torch.optim.AdamW(params, lr=lr, betas=betas, weight_decay=weight_decay, fused=fused))


def _peak(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    for group in optimizer.param_groups:
        group["peak_lr"] = group["lr"]
    return optimizer


def set_lr(optimizers: Iterable[torch.optim.Optimizer], scale: float) -> None:
    """Set every group's rate to `scale` times its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * scale


def schedule(step: int, total: int, *, warmup: int = 0, decay: str = "none", floor: float = 0.1) -> float:
    """The scale of the rate at `step` (from 0) of `total`: linear warm-up, then none, linear or cosine to `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    if decay == "none" or total <= warmup:
        return 1.0
    done = min(1.0, (step - warmup) / (total - warmup))
    shape = 1 - done if decay == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return floor + (1 - floor) * shape
