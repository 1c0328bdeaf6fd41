"""The flow from tasks to batches: how far play may run ahead of learning.

Dispatch is paced by one number: with version v being trained, at most (v + max_staleness + 1) * groups_per_step groups
have been started, so that little goes stale. 0 is synchronous.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentgym.trainers.frontier import Frontier
from agentgym.trainers.rollouts import Rollouts
from agentgym.types import Group, GroupRequest


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

    @property
    def passed(self) -> int:
        """Tasks passed over so far, for being too easy or too hard."""
        return self._frontier.passed

    def consumed(self, groups: Sequence[Group]) -> None:
        """These have reached their end in the ledger."""
        self._frontier.difficulty.record(groups)
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
