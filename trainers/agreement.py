"""Is there anything to learn from these rewards? Until the gradients say so, the learner all but stands still.

Optimizers such as Adam make steps of full size also where the gradient is nothing but noise, so a policy whose rewards
mean nothing walks off and unlearns what it could do. Signal and noise are told apart by comparing gradients of
different episodes: signal is common to them, noise is not (the idea behind the gradient noise scale: McCandlish et al.,
2018, arXiv:1812.06162, section 2.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

FEWEST = 4
"""Comparisons that are waited for: one alone is too noisy."""
HELD = 0.01
"""What is left of the learning rate until then."""


@dataclass(slots=True)
class Agreement:
    """Watches the gradients of one phase; once they have agreed it asks no more.

    `wanted` is the mean cosine between the gradients of a batch's successive minibatches, where `FEWEST` have been
    compared; of n it is wanted * sqrt(FEWEST / n), which is as unlikely to come about by chance. 0 asks for nothing.
    """

    wanted: float = 0.0
    compared: int = 0
    total: float = 0.0
    """Sum of the cosines."""
    _last: torch.Tensor | None = None

    @property
    def reached(self) -> bool:
        enough = self.compared >= FEWEST and self.total >= self.wanted * math.sqrt(FEWEST * self.compared)
        return not self.wanted or enough

    @property
    def scale(self) -> float:
        """What the learning rate is to be multiplied with."""
        return 1.0 if self.reached else HELD

    def begin_batch(self) -> None:
        """Gradients of different batches are not compared: a run that is resumed has no earlier one."""
        self._last = None

    def see(self, gradient: torch.Tensor, total: Callable[[Sequence[float]], Sequence[float]] = list) -> None:
        """gradient: [parameters], of a minibatch; one that is not finite is passed over.

        Of several ranks each sees its part of it, and `total` sums over them.
        """
        last = gradient if self._last is None else self._last
        parts = [gradient.dot(last), gradient.dot(gradient), last.dot(last)]
        dot, one, other = total([float(part) for part in parts])
        if self.reached or not math.isfinite(one):
            return
        if self._last is not None:
            cosine = dot / max(math.sqrt(one * other), 1e-30)
            self.total, self.compared = self.total + cosine, self.compared + 1
        self._last = gradient

    def state(self) -> dict[str, Any]:
        return {"compared": self.compared, "total": self.total}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.compared, self.total = int(state["compared"]), float(state["total"])
