"""Evaluations while training goes on: their episodes are played among those of training, and nothing waits for them.

The weights change meanwhile, so that the figures are of the versions from the step they began at to the last that
sampled a token; the row in metrics.jsonl says which: {"eval": "during", "step": 20, "versions": [20, 21], ...}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentgym.trainers.evaluation import EvalPlan, report, requests_of
from agentgym.trainers.rollouts import Rollouts
from agentgym.types import GIVEN, Group, Trajectory

Done = Callable[[int, Sequence[Trajectory], dict[str, Any]], None]
"""(step it began at, episodes, figures)"""


@dataclass(slots=True)
class Interim:
    """every: steps from one to the next; done: takes what was found."""

    every: int
    plan: EvalPlan
    rollouts: Rollouts
    done: Done
    _began: int = 0
    _pending: set[str] = field(default_factory=set)
    _played: list[Trajectory] = field(default_factory=list)

    def after(self, step: int, last: int) -> None:
        """Begin where one is due after `step`; after the `last` there is an evaluation anyway."""
        if self.every and step % self.every == 0 and step < last:
            self.begin(step)

    def again(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """In a run that is resumed after `step`, begin anew what was under way when it ended; rows: its metrics."""
        recorded = max((row["step"] for row in rows if row.get("eval") == "during"), default=0)
        if self.every and step // self.every * self.every > recorded:
            self.begin(step)

    def begin(self, step: int) -> None:
        """Ask for its episodes, unless the former has not ended yet."""
        if self._pending:
            return
        # the same tasks, prices and faults each time: the name says nothing of the step
        requests = requests_of(self.plan, "during", self.plan.temperature)
        self._began, self._played = step, []
        self._pending = {request.id for request in requests}
        self.rollouts.submit(requests)

    def take(self, group: Group) -> bool:
        """Whether the group is an evaluation's; the last one of it completes it."""
        if not group.id.startswith("eval:"):
            return False
        if group.id in self._pending:
            self._pending.remove(group.id)
            self._played += group.trajectories
            if not self._pending:
                self._played.sort(key=lambda t: t.id)  # the order they ended in is chance
                figures = {"versions": _versions(self._played), **report(self._played, [])}
                self.done(self._began, self._played, figures)
        return True


def _versions(played: Sequence[Trajectory]) -> list[int]:
    """First and last version that sampled a token."""
    found = {int(v) for t in played for turn in t.turns for v in set(turn.completion.versions.tolist())} - {GIVEN}
    return [min(found), max(found)] if found else []
