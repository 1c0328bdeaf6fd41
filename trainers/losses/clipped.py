"""The clip of PPO, GRPO and GSPO, safe where a ratio overflows."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Clipped(NamedTuple):
    """Of each token [N], without a gradient."""

    bound: torch.Tensor
    """What stands in the place of its ratio where that is stopped."""
    stopped: torch.Tensor
    """Whether it pushes the policy no longer."""
    held: torch.Tensor
    """Whether its ratio is not needed: it is stopped, or has no advantage."""


@torch.no_grad()
def clip(log_ratio: torch.Tensor, advantages: torch.Tensor, low: float, high: float, dual: float = 0.0) -> Clipped:
    """min(r A, clip(r, 1 - low, 1 + high) A), taken apart; below `dual` * A where that is given. All are [N].

    Taken as it is written, the minimum would have NaN as its gradient where r is infinite, though it is stopped: the
    gradient of exp is then 0 times infinity.
    """
    ratio = log_ratio.exp()
    bound = ratio.clamp(1 - low, 1 + high)
    worse = advantages < 0
    stopped = ((advantages > 0) & (ratio > bound)) | (worse & (ratio < bound))
    if dual:
        beyond = worse & (torch.maximum(ratio, bound) > dual)
        bound, stopped = torch.where(beyond, dual, bound), stopped | beyond
    return Clipped(bound, stopped, stopped | (advantages == 0))


def without(log_ratio: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
    """`log_ratio` with 0, which has no gradient, where the ratio is `held` [N]: so that exp is a number there."""
    return torch.where(held, torch.zeros_like(log_ratio), log_ratio)
