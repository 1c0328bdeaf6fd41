"""The driver's handle on a rollout worker: in this process, or in one of its own.

Requests and weights go down, groups come up; statistics ride along. Both kinds behave alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing as mp
import os
import queue
import signal
import threading
import traceback
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

from agentgym.errors import AgentGymError, UserError
from agentgym.rollout.worker import Worker, WorkerFailed, WorkerSpec
from agentgym.types import Group, GroupRequest, WeightUpdate

Stats = dict[str, float]


class RolloutError(AgentGymError):
    """The rollout worker broke or died."""


class Rollouts(Protocol):
    """Plays what is submitted; groups are received in the order they finish."""

    def ready(self) -> None:
        """Wait until the worker has loaded its model; it raises here what it cannot load."""
        ...

    def submit(self, requests: Sequence[GroupRequest]) -> None: ...

    def receive(self) -> Group:
        """The next finished group; blocks. Raises `RolloutError` when the worker is gone."""
        ...

    def update(self, update: WeightUpdate) -> None:
        """New weights, before any request submitted after this."""
        ...

    def stats(self) -> Stats: ...

    def close(self) -> None: ...


class LocalRollouts:
    """A worker in this process; it plays only while `receive` waits, so nothing overlaps."""

    def __init__(self, spec: WorkerSpec):
        self._loop = asyncio.new_event_loop()
        self._done: deque[Group | WorkerFailed] = deque()
        self._arrived = asyncio.Event()
        self._worker = self._loop.run_until_complete(self._start(spec))

    async def _start(self, spec: WorkerSpec) -> Worker:
        return Worker(spec, self._emit)

    def _emit(self, group: Group | WorkerFailed) -> None:
        self._done.append(group)
        self._arrived.set()

    def ready(self) -> None:
        """It was when it was made."""

    def submit(self, requests: Sequence[GroupRequest]) -> None:
        async def begin() -> None:
            for request in requests:
                self._worker.submit(request)

        self._loop.run_until_complete(begin())

    def receive(self) -> Group:
        while not self._done:
            self._arrived.clear()
            self._loop.run_until_complete(self._arrived.wait())
        return _unwrap(self._done.popleft())

    def update(self, update: WeightUpdate) -> None:
        self._loop.run_until_complete(self._worker.update_weights(update))

    def stats(self) -> Stats:
        return {**self._worker.stats(), "cpu_s": 0.0}  # its CPU time is this process's own

    def close(self) -> None:
        if not self._loop.is_closed():
            self._loop.run_until_complete(self._worker.aclose())
            self._loop.close()


class ProcessRollouts:
    """A worker in a process of its own: it plays while the learner learns. It dies with its parent."""

    def __init__(self, spec: WorkerSpec):
        context = mp.get_context("spawn")
        self._down, child_end = context.Pipe()
        self._up: Any = context.Queue()
        self._process = context.Process(target=_worker_main, args=(spec, child_end, self._up), name="rollout-worker")
        self._process.start()
        child_end.close()
        self._groups: deque[Group] = deque()
        self._loaded = False

    def ready(self) -> None:
        if not self._loaded:
            self._wait("ready")

    def submit(self, requests: Sequence[GroupRequest]) -> None:
        self._send("play", list(requests))

    def receive(self) -> Group:
        if self._groups:
            return self._groups.popleft()
        group: Group = self._wait("group")
        return group

    def update(self, update: WeightUpdate) -> None:
        self._send("weights", update)
        self._wait("weights")

    def stats(self) -> Stats:
        self._send("stats", None)
        stats: Stats = self._wait("stats")
        return stats

    def close(self) -> None:
        if self._process.is_alive():
            with contextlib.suppress(OSError):
                self._down.send(("close", None))
            # the feeder thread of the child's queue blocks its exit until the queue is drained
            while self._process.is_alive():
                try:
                    self._up.get(timeout=0.1)
                except (queue.Empty, EOFError, OSError):
                    self._process.join(timeout=0.1)
        self._up.close()
        self._down.close()

    def _send(self, kind: str, payload: Any) -> None:
        try:
            self._down.send((kind, payload))
        except OSError:
            raise RolloutError(self._obituary()) from None

    def _wait(self, kind: str) -> Any:
        """The next message of `kind`; groups that arrive meanwhile are kept for `receive`."""
        while True:
            try:
                got, payload = self._up.get(timeout=1.0)
            except queue.Empty:
                if not self._process.is_alive():
                    raise RolloutError(self._obituary()) from None
                continue
            if got == "user_error":
                raise payload
            if got == "failed":
                raise RolloutError(f"the rollout worker failed:\n{payload}")
            if got == "ready":
                self._loaded = True  # whatever is waited for: it comes once
            if got == kind:
                return _unwrap(payload) if kind == "group" else payload
            if got == "group":
                self._groups.append(_unwrap(payload))

    def _obituary(self) -> str:
        self._process.join(timeout=2.0)
        return f"the rollout worker died (exit code {self._process.exitcode}); the run can be continued with --resume"


def make_rollouts(spec: WorkerSpec) -> Rollouts:
    """As `run.processes` says."""
    return ProcessRollouts(spec) if spec.config.run.processes == 2 else LocalRollouts(spec)


def _unwrap(group: Group | WorkerFailed) -> Group:
    if isinstance(group, WorkerFailed):
        raise RolloutError(f"the rollout worker failed:\n{group.traceback}")
    return group


def _worker_main(spec: WorkerSpec, down: Any, up: Any) -> None:
    """Body of the worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides when to stop
    try:
        asyncio.run(_serve(spec, down, up))
    except UserError as e:
        up.put(("user_error", e))
    except BaseException:
        up.put(("failed", traceback.format_exc()))


async def _serve(spec: WorkerSpec, down: Any, up: Any) -> None:
    loop = asyncio.get_running_loop()
    inbox: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()

    def read() -> None:
        while True:
            try:
                message = down.recv()
            except (EOFError, OSError):
                os._exit(1)  # the driver is gone: leave no orphan, whatever is under way
            loop.call_soon_threadsafe(inbox.put_nowait, message)

    worker = Worker(spec, lambda group: up.put(("group", group)))
    threading.Thread(target=read, daemon=True).start()
    up.put(("ready", None))
    while True:
        kind, payload = await inbox.get()
        if kind == "play":
            for request in payload:
                worker.submit(request)
        elif kind == "weights":
            await worker.update_weights(payload)
            up.put(("weights", payload.version))
        elif kind == "stats":
            up.put(("stats", worker.stats()))
        elif kind == "close":
            await worker.aclose()
            return
