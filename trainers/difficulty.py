"""How hard the tasks are for the policy as it is: their success, measured by the run itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from agentgym.types import Group, Outcome

MEMORY = 0.9
"""What a measurement keeps of those before it: about ten groups of a kind are remembered."""
UNKNOWN = 0.5


@dataclass(slots=True)
class Difficulty:
    """The success of tasks and of their kinds, a moving average over groups.

    A group of equal rewards teaches nothing, and the share of such groups grows as success p leaves 1/2: the variance
    of a 0/1 reward is p(1 - p). So what a task is worth is 4p(1 - p), from 0 (always or never solved) to 1.
    """

    _rates: dict[str, float] = field(default_factory=dict)

    def record(self, groups: Iterable[Group]) -> None:
        """Learn from finished groups; episodes that could not be scored say nothing."""
        for group in groups:
            scored = [t.outcome is Outcome.correct for t in group.trajectories if t.outcome is not Outcome.unscored]
            if not scored:
                continue
            rate = sum(scored) / len(scored)
            for key in {_task(group.env_id, group.task_id), _kind(group.env_id, group.trajectories[0].kind)}:
                self._rates[key] = MEMORY * self._rates[key] + (1 - MEMORY) * rate if key in self._rates else rate

    def success(self, env_id: str, task_id: str, kind: str) -> float:
        """The task's own if it was played, else its kind's, else 1/2."""
        own = self._rates.get(_task(env_id, task_id))
        return own if own is not None else self._rates.get(_kind(env_id, kind), UNKNOWN)

    def worth(self, env_id: str, task_id: str, kind: str) -> float:
        """4p(1 - p) of its success p."""
        p = self.success(env_id, task_id, kind)
        return 4 * p * (1 - p)

    def state(self) -> dict[str, Any]:
        return dict(self._rates)

    def restore(self, state: dict[str, Any]) -> None:
        self._rates = dict(state)


def _task(env_id: str, task_id: str) -> str:
    return f"{env_id} task {task_id}"


def _kind(env_id: str, kind: str) -> str:
    return f"{env_id} kind {kind}"
