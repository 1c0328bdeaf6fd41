"""When the reference of the KL penalty may move: only after rewards have shown that moving was worth it.

Optimizers make steps of full size also where the gradient is nothing but noise, so a policy whose rewards mean nothing
walks off. Held to a fixed reference it stays, but then it is also kept from what it could learn. So the reference is
reset to the present policy (ProRL, arXiv 2505.24864, does so on a schedule) once the mean reward has significantly
passed that of the reference's own time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agentgym.types import Group

WINDOW = 4
"""Batches whose group means are taken together."""
DEVIATIONS = 3.5
"""Standard errors of the difference that count as progress."""


@dataclass(slots=True)
class Anchor:
    """Watches the mean rewards of batches of groups."""

    recent: list[list[float]] = field(default_factory=list)
    """Mean rewards by group of the last batches, since the reference was set at most."""
    before: tuple[float, float] | None = None
    """(mean reward, its standard error) of the reference's first window."""

    def passed(self, groups: Sequence[Group]) -> bool:
        """Take in a batch; True where the reference is to be reset to the policy."""
        means = [
            np.mean(paid)
            for group in groups
            if (paid := [t.reward for t in group.trajectories if t.reward is not None])
        ]
        self.recent = [*self.recent[-(WINDOW - 1) :], [float(mean) for mean in means]]
        if len(self.recent) < WINDOW:
            return False
        values = np.array([mean for batch in self.recent for mean in batch])
        if len(values) < 2:
            return False
        now = float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))
        if self.before is None:
            self.before, self.recent = now, []
            return False
        gain = now[0] - self.before[0]
        if gain <= DEVIATIONS * math.hypot(now[1], self.before[1]):
            return False
        self.before, self.recent = now, []
        return True

    def state(self) -> dict[str, Any]:
        return {"recent": self.recent, "before": self.before}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.recent = [list(batch) for batch in state["recent"]]
        self.before = tuple(state["before"]) if state["before"] else None
