"""What rollout workers count: asked of all at once, kept where one does not answer, and never lost with a process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from agentgym.trainers.accounting import GAUGES
from agentgym.trainers.rollouts import Stats

ANSWER_SECONDS = 5.0
"""That workers have to say what they have counted, or are at."""

Fetch = Callable[[Any, Any], Any]
"""(worker, reference to its answer, which is there) -> the answer; None from one that is lost."""


class Counters:
    """Of the workers of one run, by the worker; each has an `actor`."""

    def __init__(self, ray: Any):
        self._ray = ray
        self._past: Counter[str] = Counter()
        """What processes had counted that are no more."""
        self._asked: dict[Any, Any] = {}
        """Who has not answered yet."""
        self._latest: dict[Any, Stats] = {}
        """As they last told them."""

    def ask(self, workers: Iterable[Any], fetch: Fetch) -> None:
        """Have the counters of the day. Who has not answered the last time is not waited for again."""
        self._take(fetch)
        fresh = [worker for worker in workers if worker not in self._asked]
        for worker in fresh:
            self._asked[worker] = worker.actor.stats.remote()
        if fresh:
            self._ray.wait([self._asked[worker] for worker in fresh], num_returns=len(fresh), timeout=ANSWER_SECONDS)
            self._take(fetch)

    def _take(self, fetch: Fetch) -> None:
        for worker, asked in list(self._asked.items()):
            if self._ray.wait([asked], timeout=0)[0]:
                self._asked.pop(worker, None)
                self._latest[worker] = fetch(worker, asked) or self._latest.get(worker, {})

    def lost(self, worker: Any) -> None:
        """It will not answer what it was asked."""
        self._asked.pop(worker, None)

    def begin(self, worker: Any) -> None:
        """It is a new process, which counts from nothing."""
        before = self._latest.pop(worker, {})
        self._past.update({name: n for name, n in before.items() if name not in GAUGES})

    def total(self) -> Stats:
        """Sums over all of them; `peak_mem` is the largest of one."""
        rows: list[Mapping[str, float]] = [self._past, *self._latest.values()]
        names = {name for row in rows for name in row}
        total = {name: sum(row.get(name, 0.0) for row in rows) for name in names}
        return {"cpu_s": 0.0, **total, "peak_mem": max(row.get("peak_mem", 0.0) for row in rows)}
