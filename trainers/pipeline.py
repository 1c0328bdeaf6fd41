"""The flow from tasks to batches: how far play may run ahead of learning.

Dispatch is paced by one number: with version v being trained, at most (v + max_staleness + 1) * groups_per_step groups
have been started, so that little goes stale. 0 is synchronous. Of what has finished, the oldest is trained first: it
has the least time left. The bound itself is held per token, where rows are made (`batch`).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agentgym.trainers.frontier import Frontier
from agentgym.trainers.rollouts import Rollouts
from agentgym.trainers.stall import NOBODY, StallWatch
from agentgym.types import GIVEN, Group, GroupRequest

_LATEST = np.iinfo(np.int32).max


@dataclass(frozen=True, slots=True)
class Batch:
    """The groups of one step, and those that were played in vain and replaced (dynamic sampling)."""

    groups: list[Group]
    replaced: list[Group]

    @property
    def all(self) -> list[Group]:
        return [*self.groups, *self.replaced]


class Pipeline:
    """Keeps the rollout worker busy within the bound, and hands out one batch of groups a step.

    `replace`: groups that `teaches` denies are left out and others played in their place, at most so many times
    `groups` a step (dynamic sampling: DAPO, arXiv:2503.14476, section 3.2). `aside` takes groups that are not training
    (an evaluation, say) out of the flow.
    """

    def __init__(
        self,
        rollouts: Rollouts,
        frontier: Frontier,
        *,
        groups: int,
        max_staleness: int,
        steps: int,
        replace: float = 0.0,
        teaches: Callable[[Group], bool] = lambda group: True,
        watch: StallWatch = NOBODY,
        aside: Callable[[Group], bool] = lambda group: False,
    ):
        self._rollouts = rollouts
        self._frontier = frontier
        self._groups = groups
        self._ahead = max_staleness + 1
        self._steps = steps
        self._replaceable = int(replace * groups)
        self._teaches = teaches
        self._watch = watch
        self._aside = aside
        self._in_flight: dict[str, GroupRequest] = {}
        self._finished: list[tuple[int, int, Group]] = []
        """(oldest version, order of arrival, group), a heap."""
        self._arrivals = 0
        self.started = 0
        self.replaced = 0

    def dispatch(self, version: int) -> None:
        """Start what the bound allows while `version` is trained; nothing beyond the last step."""
        allowed = min(version + self._ahead, self._steps) * self._groups + self.replaced
        self._start([self._frontier.next() for _ in range(allowed - self.started)])

    def _start(self, requests: Sequence[GroupRequest]) -> None:
        self._in_flight.update({request.id: request for request in requests})
        self.started += len(requests)
        if requests:
            self._rollouts.submit(requests)

    def batch(self, version: int) -> Batch:
        """The `groups` oldest of the finished groups, as soon as there are so many."""
        self.dispatch(version)
        chosen: list[Group] = []
        replaced: list[Group] = []
        while len(chosen) < self._groups:
            for arrived in self._rollouts.arrived():
                self._take(arrived)
            if (there := len(chosen) + len(self._finished)) < self._groups:
                self._watch.about = f"{there} of {self._groups} groups of step {version + 1} are there"
                self._take(self._rollouts.receive())
                continue
            group = heapq.heappop(self._finished)[2]
            if len(replaced) < self._replaceable and not self._teaches(group):
                replaced.append(group)
                self.replaced += 1
                self.dispatch(version)
            else:
                chosen.append(group)
        self._watch.about = ""
        return Batch(chosen, replaced)

    def _take(self, group: Group) -> None:
        if self._aside(group):
            return
        self._arrivals += 1
        heapq.heappush(self._finished, (oldest_version(group), self._arrivals, group))

    @property
    def passed(self) -> int:
        """Tasks passed over so far, for being too easy or too hard."""
        return self._frontier.passed

    def consumed(self, groups: Sequence[Group]) -> None:
        """These have reached their end in the ledger."""
        self._frontier.difficulty.record(groups)
        for group in groups:
            self._in_flight.pop(group.id, None)

    def finished(self) -> list[Group]:
        """Groups that were played and are still to be trained, in the order they came: they outlive a resume, as do
        the requests in `state`. Those whose experts are to be replayed do not: records do not hold experts."""
        for arrived in self._rollouts.arrived():
            self._take(arrived)
        groups = [group for _, _, group in sorted(self._finished, key=lambda entry: entry[1])]
        return [g for g in groups if all(turn.completion.experts is None for t in g.trajectories for turn in t.turns)]

    def state(self) -> dict[str, Any]:
        """What a resumed run needs: the frontier, and what was started but has not reached its end."""
        return {
            "frontier": self._frontier.state(),
            "in_flight": [[r.id, r.env_id, r.task] for r in self._in_flight.values()],
            "replaced": self.replaced,
        }

    def restore(self, state: dict[str, Any], step: int, finished: Sequence[Group] = ()) -> None:
        """Go on after `step` trained steps: what is `finished` is there, what else was in flight is played again."""
        self._frontier.restore(state["frontier"])
        self.replaced = state.get("replaced", 0)
        self.started = step * self._groups + self.replaced
        size, seed, temperature = self._frontier.size, self._frontier.seed, self._frontier.temperature
        requests = [GroupRequest(i, env, task, size, seed, temperature) for i, env, task in state["in_flight"]]
        there = {group.id for group in finished}
        self._in_flight = {request.id: request for request in requests if request.id in there}
        self.started += len(self._in_flight)
        for group in finished:
            if group.id in self._in_flight:
                self._take(group)
        self._start([request for request in requests if request.id not in there])


def oldest_version(group: Group) -> int:
    """Of any token that the policy sampled in the group; 0 where it sampled none."""
    sampled = [turn.completion.versions for turn in _sampled(group)]
    return min((int(versions[versions != GIVEN].min(initial=_LATEST)) for versions in sampled), default=0)


def _sampled(group: Group) -> Sequence[Any]:
    return [turn for t in group.trajectories for turn in t.turns if len(turn.completion.versions)]
