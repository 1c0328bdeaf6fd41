"""Containers started ahead."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeAlias

from agentgym.sandboxes.docker.containers import Plan
from agentgym.sandboxes.docker.session import ContainerSession

Coming: TypeAlias = "Future[ContainerSession]"
PLANS = 4
"""Of how many plans, the last ones asked for, containers are kept."""


class Warm:
    """Keeps `count` containers of each plan that was asked for lately; none is ever put back."""

    def __init__(self, begin: Callable[[Plan], Coming], count: int):
        self._begin = begin
        self._count = count
        self._coming: OrderedDict[Plan, deque[Coming]] = OrderedDict()
        self._guard = threading.Lock()

    def take(self, plan: Plan) -> Coming | None:
        """One that runs or is about to; None where there is none."""
        with self._guard:
            coming = self._coming.get(plan, deque())
            while coming:
                first = coming.popleft()
                if not first.done() or (first.exception() is None and first.result().alive):
                    return first
                drop(first)
        return None

    def fill(self, plan: Plan) -> None:
        with self._guard:
            coming = self._coming.setdefault(plan, deque())
            self._coming.move_to_end(plan)
            while len(coming) < self._count:
                coming.append(self._begin(plan))
            while len(self._coming) > PLANS:
                for old in self._coming.popitem(last=False)[1]:
                    drop(old)

    def empty(self) -> None:
        with self._guard:
            for coming in self._coming.values():
                for each in coming:
                    drop(each)
            self._coming.clear()


def drop(coming: Coming) -> None:
    """Nobody wants it: it is removed once it is there."""
    coming.cancel()
    coming.add_done_callback(_abandoned)


def _abandoned(coming: Coming) -> None:
    if not coming.cancelled() and coming.exception() is None:
        coming.result().abandon()
