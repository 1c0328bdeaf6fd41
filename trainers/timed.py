"""Rollouts that play nothing: episodes take the time they are given, on a clock that moves only when one waits.

For tests and benchmarks of what is built on `Rollouts`: who starts what when, what overlaps, how old tokens become.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from agentgym.types import Completion, Group, GroupRequest, Message, Outcome, StopReason, Trajectory, Turn
from agentgym.weights import WeightUpdate


class TimedRollouts:
    """Implements `trainers.rollouts.Rollouts`: `slots` sequences at once, first come first served.

    `tokens(request, i)` says how many tokens episode i of a group samples; a token takes `token_seconds`. New weights
    are taken at once, in mid-sequence. Every second episode of a group is rewarded.
    """

    def __init__(self, tokens: Callable[[GroupRequest, int], int], *, slots: int, token_seconds: float):
        self._tokens = tokens
        self._free = slots
        self._token_seconds = token_seconds
        self._waiting: deque[tuple[GroupRequest, int]] = deque()
        self._running: list[tuple[float, int, GroupRequest, int, float, int]] = []
        """(end, order, request, episode, start, tokens), a heap."""
        self._played: dict[str, dict[int, Trajectory]] = {}
        self._done: deque[Group] = deque()
        self._published: list[tuple[float, int]] = [(0.0, 0)]
        self._count = 0
        self.now = 0.0
        self.busy = 0.0
        """Seconds that slots were used, of all slots together."""

    def ready(self) -> None: ...

    def submit(self, requests: Sequence[GroupRequest]) -> None:
        for request in requests:
            self._played[request.id] = {}
            self._waiting += [(request, i) for i in range(request.size)]
        self._fill()

    def arrived(self) -> list[Group]:
        groups, self._done = list(self._done), deque()
        return groups

    def receive(self) -> Group:
        """Raises `RuntimeError` where nothing is under way: real rollouts would block for ever."""
        while not self._done:
            if not self._running:
                raise RuntimeError("waiting for a group, and none was submitted")
            self._finish()
        return self._done.popleft()

    def update(self, update: WeightUpdate) -> None:
        self._published.append((self.now, update.version))

    def wait(self, seconds: float) -> None:
        """Let time pass: episodes go on."""
        until = self.now + seconds
        while self._running and self._running[0][0] <= until:
            self._finish()
        self.now = until

    def stats(self) -> dict[str, float]:
        return {"cpu_s": 0.0, "peak_mem": 0.0}

    def close(self) -> None: ...

    def _fill(self) -> None:
        while self._free and self._waiting:
            request, episode = self._waiting.popleft()
            count = self._tokens(request, episode)
            end = self.now + count * self._token_seconds
            self._free -= 1
            self._count += 1
            heapq.heappush(self._running, (end, self._count, request, episode, self.now, count))

    def _finish(self) -> None:
        self.now, _, request, episode, start, count = heapq.heappop(self._running)
        self._free += 1
        self.busy += self.now - start
        played = self._played[request.id]
        played[episode] = self._trajectory(request, episode, start, count)
        if len(played) == request.size:
            del self._played[request.id]
            ordered = tuple(played[i] for i in range(request.size))
            self._done.append(Group(request.id, str(request.task), request.env_id, ordered, request))
        self._fill()

    def _trajectory(self, request: GroupRequest, episode: int, start: float, count: int) -> Trajectory:
        times, versions = zip(*self._published, strict=True)
        sampled = start + self._token_seconds * np.arange(1, count + 1)
        of = np.asarray(versions, np.int32)[np.searchsorted(times, sampled, side="right") - 1]
        done = Completion(np.ones(count, np.int32), np.zeros(count, np.float32), of)
        turn = Turn(0, None, np.ones(1, np.int32), done, Message("assistant", ""))
        right = episode % 2 == 0
        outcome = Outcome.correct if right else Outcome.incorrect
        name = f"{request.id}/{episode}"
        return Trajectory(
            name, str(request.task), request.env_id, (turn,), (), float(right), {}, outcome, StopReason.completed,
            episode=episode,
        )  # fmt: skip
