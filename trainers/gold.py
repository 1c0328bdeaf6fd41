"""Watches whether what is trained on is what is meant: the reward beside the component that tells true success.

An env names that component (`gold`, by default "gold", best of weight 0). Both are expected on one scale, 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agentgym.types import Group

APART = 0.2
"""How far a step's mean reward and mean gold may part before a run warns."""


@dataclass(frozen=True, slots=True)
class Parting:
    """One env's episodes of a step: mean reward and mean gold."""

    env_id: str
    component: str
    reward: float
    gold: float

    @property
    def gap(self) -> float:
        return self.reward - self.gold

    def told(self, step: int) -> str:
        return (
            f"step {step}: the reward of {self.env_id} is {self.reward:.2f}, but its {self.component!r} is "
            f"{self.gold:.2f}: what is rewarded is not what is meant; look at what the agent does "
            f"(trajectories/step-{step:05d}.jsonl) and mend the reward"
        )


@dataclass(slots=True)
class GoldWatch:
    """Adds `gold/*` to a step's metrics and warns once an env where reward and gold part by more than `APART`."""

    components: Mapping[str, str] = field(default_factory=dict)
    """The gold component's name by env."""
    warned: list[dict[str, Any]] = field(default_factory=list)
    """What was warned of: step, env, component, reward, gold."""

    def metrics(self, groups: Sequence[Group]) -> dict[str, float]:
        """`gold/mean` and `gold/gap` (reward less gold) over scored episodes that have gold; with several envs the
        gap is that of the env where it is widest. Empty where no env has gold."""
        found = self._partings(groups)
        if not found:
            return {}
        widest = max(found, key=lambda parting: abs(parting.gap))
        return {"gold/mean": float(np.mean([parting.gold for parting in found])), "gold/gap": widest.gap}

    def warnings(self, groups: Sequence[Group], step: int) -> list[str]:
        """What is to be told now: nothing of an env that was warned of before."""
        known = {row["env"] for row in self.warned}
        fresh = [p for p in self._partings(groups) if abs(p.gap) > APART + 1e-9 and p.env_id not in known]
        for p in fresh:
            row = {"step": step, "env": p.env_id, "component": p.component, "reward": p.reward, "gold": p.gold}
            self.warned.append(row)
        return [p.told(step) for p in fresh]

    def _partings(self, groups: Sequence[Group]) -> list[Parting]:
        pairs: dict[str, list[tuple[float, float]]] = {}
        for trajectory in (t for group in groups for t in group.trajectories):
            gold = trajectory.components.get(self.components.get(trajectory.env_id, "gold"))
            if trajectory.reward is not None and gold is not None:
                pairs.setdefault(trajectory.env_id, []).append((trajectory.reward, gold))
        means = {env_id: np.mean(found, axis=0).tolist() for env_id, found in pairs.items()}
        return [Parting(e, self.components.get(e, "gold"), reward, gold) for e, (reward, gold) in means.items()]
