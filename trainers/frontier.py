"""Which task is played next: several envs by their weights, each env's tasks in an order of its own every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agentgym.trainers.difficulty import Difficulty
from agentgym.types import GroupRequest


@dataclass(frozen=True, slots=True)
class TaskSource:
    """The tasks of one env, in the order of the env's own list: their ids, and their kinds where they have any."""

    env_id: str
    task_ids: Sequence[str]
    weight: float = 1.0
    kinds: Sequence[str] = ()


@dataclass(slots=True)
class Frontier:
    """Which tasks come next. A function of seed, position and measured success, so a resumed run goes on where it was.

    `focus`, below 1: a task that is worth w (see `Difficulty`) is passed over until the next epoch with probability
    focus * (1 - w); 0 passes none over.
    """

    sources: list[TaskSource]
    size: int
    seed: int
    temperature: float = 1.0
    focus: float = 0.0
    position: int = 0
    passed: int = 0
    """Tasks passed over so far."""
    difficulty: Difficulty = field(default_factory=Difficulty)
    _taken: list[int] = field(default_factory=list)
    """By source, tasks that have had their turn, those passed over too."""
    _asked: list[int] = field(default_factory=list)
    _orders: dict[tuple[int, int], Any] = field(default_factory=dict)

    def next(self) -> GroupRequest:
        which = self._choose()
        source = self.sources[which]
        epoch, task = self._turn(which)
        while self.focus and self._passes(source, epoch, task):
            self.passed += 1
            epoch, task = self._turn(which)
        self._asked[which] += 1
        self.position += 1
        prefix = f"{source.env_id}:" if len(self.sources) > 1 else ""
        request_id = f"{epoch}:{prefix}{source.task_ids[task]}"
        return GroupRequest(request_id, source.env_id, task, self.size, self.seed, self.temperature)

    def _choose(self) -> int:
        """The env that is furthest behind its share."""
        if not self._taken:
            self._taken, self._asked = [0] * len(self.sources), [0] * len(self.sources)
        weights = np.array([source.weight for source in self.sources])
        owed = weights / weights.sum() * (self.position + 1) - np.array(self._asked)
        return int(owed.argmax())

    def _turn(self, which: int) -> tuple[int, int]:
        epoch, place = divmod(self._taken[which], len(self.sources[which].task_ids))
        self._taken[which] += 1
        return epoch, int(self._order(which, epoch)[place])

    def _passes(self, source: TaskSource, epoch: int, task: int) -> bool:
        kind = source.kinds[task] if source.kinds else ""
        worth = self.difficulty.worth(source.env_id, source.task_ids[task], kind)
        draw = np.random.default_rng([self.seed, epoch, task, *source.env_id.encode()]).random()
        return bool(draw < self.focus * (1 - worth))

    def _order(self, which: int, epoch: int) -> Any:
        if (which, epoch) not in self._orders:
            rng = np.random.default_rng([self.seed, which, epoch])
            self._orders = {(which, epoch): rng.permutation(len(self.sources[which].task_ids)), **self._orders}
        return self._orders[which, epoch]

    def state(self) -> dict[str, Any]:
        return {
            "position": self.position,
            "taken": list(self._taken),
            "asked": list(self._asked),
            "passed": self.passed,
            "difficulty": self.difficulty.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.position, self._taken = state["position"], list(state["taken"])
        self._asked = list(state.get("asked", self._taken))  # checkpoints of before tasks could be passed over
        self.passed = state.get("passed", 0)
        self.difficulty.restore(state.get("difficulty", {}))
