"""The flow from tasks to batches: which task is played next, and how far play may run ahead of learning.

Dispatch is paced by one number: with version v being trained, at most (v + max_staleness + 1) * groups_per_step groups
have been started, so that little goes stale. 0 is synchronous.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agentgym.trainers.rollouts import Rollouts
from agentgym.types import Group, GroupRequest


@dataclass(frozen=True, slots=True)
class TaskSource:
    """The tasks of one env: their ids, in the order of the env's own list."""

    env_id: str
    task_ids: Sequence[str]
    weight: float = 1.0


@dataclass(slots=True)
class Frontier:
    """Which tasks come next. A pure function of seed and position, so a resumed run goes on exactly where it was."""

    sources: list[TaskSource]
    size: int
    seed: int
    temperature: float = 1.0
    position: int = 0
    _taken: list[int] = field(default_factory=list)
    _orders: dict[tuple[int, int], Any] = field(default_factory=dict)

    def next(self) -> GroupRequest:
        which = self._choose()
        source = self.sources[which]
        epoch, place = divmod(self._taken[which], len(source.task_ids))
        self._taken[which] += 1
        self.position += 1
        task = int(self._order(which, epoch)[place])
        prefix = f"{source.env_id}:" if len(self.sources) > 1 else ""
        request_id = f"{epoch}:{prefix}{source.task_ids[task]}"
        return GroupRequest(request_id, source.env_id, task, self.size, self.seed, self.temperature)

    def _choose(self) -> int:
        """The env that is furthest behind its share."""
        if not self._taken:
            self._taken = [0] * len(self.sources)
        weights = np.array([source.weight for source in self.sources])
        owed = weights / weights.sum() * (self.position + 1) - np.array(self._taken)
        return int(owed.argmax())

    def _order(self, which: int, epoch: int) -> Any:
        if (which, epoch) not in self._orders:
            rng = np.random.default_rng([self.seed, which, epoch])
            self._orders = {(which, epoch): rng.permutation(len(self.sources[which].task_ids)), **self._orders}
        return self._orders[which, epoch]

    def state(self) -> dict[str, Any]:
        return {"position": self.position, "taken": list(self._taken)}

    def restore(self, state: dict[str, Any]) -> None:
        self.position, self._taken = state["position"], list(state["taken"])


class Pipeline:
    """Keeps the rollout worker busy within the bound, and hands out one batch of groups a step."""

    def __init__(self, rollouts: Rollouts, frontier: Frontier, *, groups: int, max_staleness: int, steps: int):
        self._rollouts = rollouts
        self._frontier = frontier
        self._groups = groups
        self._ahead = max_staleness + 1
        self._steps = steps
        self._in_flight: dict[str, GroupRequest] = {}
        self.started = 0

    def dispatch(self, version: int) -> None:
        """Start what the bound allows while `version` is trained; nothing beyond the last step."""
        allowed = min(version + self._ahead, self._steps) * self._groups
        requests = [self._frontier.next() for _ in range(allowed - self.started)]
        self._start(requests)

    def _start(self, requests: Sequence[GroupRequest]) -> None:
        self._in_flight.update({request.id: request for request in requests})
        self.started += len(requests)
        if requests:
            self._rollouts.submit(requests)

    def batch(self, version: int) -> list[Group]:
        """The next `groups` finished groups, in the order in which they finished."""
        self.dispatch(version)
        batch = []
        for _ in range(self._groups):
            group = self._rollouts.receive()
            batch.append(group)
        return batch

    def consumed(self, groups: Sequence[Group]) -> None:
        """These have reached their end in the ledger."""
        for group in groups:
            self._in_flight.pop(group.id, None)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs: the frontier, and what was started but has not reached its end."""
        return {
            "frontier": self._frontier.state(),
            "in_flight": [[r.id, r.env_id, r.task] for r in self._in_flight.values()],
        }

    def restore(self, state: dict[str, Any], step: int) -> None:
        """Go on after `step` trained steps: what was in flight is played again, nothing is skipped."""
        self._frontier.restore(state["frontier"])
        self.started = step * self._groups
        size, seed, temperature = self._frontier.size, self._frontier.seed, self._frontier.temperature
        self._start([GroupRequest(i, env, task, size, seed, temperature) for i, env, task in state["in_flight"]])
