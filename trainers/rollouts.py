"""The driver's handle on a rollout worker: in this process, or in one of its own.

Requests and weights go down, groups come up; statistics ride along. Both kinds behave alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing as mp
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from agentgym.errors import AgentGymError, ConfigError, RunError, UserError
from agentgym.rollout.situation import Situation
from agentgym.rollout.worker import Worker, WorkerFailed, WorkerSpec
from agentgym.trainers.outbox import Outbox
from agentgym.trainers.stall import NOBODY, SILENCE, StallWatch
from agentgym.types import Group, GroupRequest
from agentgym.weights import WeightUpdate

LOOK_SECONDS = 1.0
"""Whoever waits for a worker looks so often whether it is alive."""
SAYS_SECONDS = 5.0
"""A worker has so long to say what it is at."""
WAITED_FOR = {
    "group": "a group",
    "ready": "the rollout worker to load its model",
    "weights": "the rollout worker to take new weights",
    "stats": "the rollout worker's counters",
}
CLOSING = 10.0
"""Seconds that a worker has to end when it is told to; then it is ended."""

Stats = dict[str, float]


class RolloutError(AgentGymError):
    """The rollout worker broke."""


class WorkerDied(RolloutError, RunError):
    """Its process is gone, often killed for memory: the user can go on with the run."""


class Rollouts(Protocol):
    """Plays what is submitted; groups are received in the order they finish."""

    def ready(self) -> None:
        """Wait until the worker has loaded its model; it raises here what it cannot load."""
        ...

    def submit(self, requests: Sequence[GroupRequest]) -> None: ...

    def receive(self) -> Group:
        """The next finished group; blocks. Raises `RolloutError` when the worker is gone."""
        ...

    def arrived(self) -> list[Group]:
        """All finished groups that were not received yet; does not block."""
        ...

    def update(self, update: WeightUpdate) -> None:
        """New weights, before any request submitted after this."""
        ...

    def stats(self) -> Stats: ...

    def close(self) -> None: ...


class LocalRollouts:
    """A worker in this process; it plays only while `receive` waits, so nothing overlaps."""

    def __init__(self, spec: WorkerSpec, watch: StallWatch = NOBODY):
        self._watch = watch
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
            self._loop.run_until_complete(self._wait())
        self._watch.over()
        return _unwrap(self._done.popleft())

    async def _wait(self) -> None:
        """For a group; without a watch, for as long as it takes."""
        try:
            async with asyncio.timeout(LOOK_SECONDS if self._watch.seconds else None):
                await self._arrived.wait()
        except TimeoutError:
            self._watch.waiting("a group", self._worker.situation)

    def arrived(self) -> list[Group]:
        return [_unwrap(self._done.popleft()) for _ in range(len(self._done))]

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

    def __init__(self, spec: WorkerSpec, watch: StallWatch = NOBODY):
        self._watch = watch
        self._answered = time.monotonic()
        self._situation: Situation | None = None
        context = mp.get_context("spawn")
        # pipes, not queues: of a queue the reader has a writing end too, and waits for ever for the rest of a message
        # whose sender was killed
        down, self._down = context.Pipe(duplex=False)
        self._up, up = context.Pipe(duplex=False)
        self._process = context.Process(target=_worker_main, args=(spec, down, up), name="rollout-worker")
        self._process.start()
        down.close()
        up.close()
        self._groups: deque[Group] = deque()
        self._kept: deque[tuple[str, Any]] = deque()
        """What came while the worker was asked for its situation."""
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

    def arrived(self) -> list[Group]:
        try:
            while self._kept or self._up.poll(0):
                kind, payload = self._kept.popleft() if self._kept else self._take()
                if kind == "group":
                    self._groups.append(payload)
        except (EOFError, OSError):
            raise WorkerDied(self._obituary()) from None
        if self._groups:
            self._watch.over()
        groups, self._groups = list(self._groups), deque()
        return groups

    def update(self, update: WeightUpdate) -> None:
        self._send("weights", update)
        self._wait("weights")

    def stats(self) -> Stats:
        self._send("stats", None)
        stats: Stats = self._wait("stats")
        return stats

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._down.send(("close", None))
        self._up.close()  # the worker may be sending, and is not to wait for a reader
        self._process.join(CLOSING)
        if self._process.is_alive():  # an env or tool holds up its event loop
            self._process.kill()
            self._process.join()
        self._down.close()

    def _send(self, kind: str, payload: Any) -> None:
        try:
            self._down.send((kind, payload))
        except OSError:
            raise WorkerDied(self._obituary()) from None

    def _wait(self, kind: str) -> Any:
        """The next message of `kind`; groups that arrive meanwhile are kept for `receive`."""
        self._answered = time.monotonic()
        while True:
            if (message := self._next(LOOK_SECONDS)) is None:
                self._watch.waiting(WAITED_FOR[kind], self.situation)
                self._hear()
                continue
            got, payload = message
            if got == kind:
                self._watch.over()
                return payload
            if got == "group":
                self._groups.append(payload)

    def _hear(self) -> None:
        """Give up a worker of which nothing has been heard for long, not even what it does."""
        if self._loaded and time.monotonic() - self._answered > SILENCE and self.situation() is None:
            raise WorkerDied(
                f"the rollout worker (process {self._process.pid}) has given no sign of life for {SILENCE:g} s: "
                "something holds up the whole process; the run can be continued with --resume"
            )

    def situation(self) -> Situation | None:
        """What the worker is at; None where it does not say within `SAYS_SECONDS`, or is not there yet."""
        if not self._loaded:
            return None
        self._situation = None
        self._send("situation", None)
        until = time.monotonic() + SAYS_SECONDS
        while self._situation is None and (left := until - time.monotonic()) > 0:
            message = self._next(left)
            if message is not None and message[0] != "situation":
                self._kept.append(message)
        return self._situation

    def _next(self, seconds: float) -> tuple[str, Any] | None:
        """The next message, None where there is none after so long; raises `WorkerDied`."""
        if self._kept:
            return self._kept.popleft()
        try:
            if self._up.poll(seconds):
                return self._take()
            if self._process.is_alive():
                return None
        except (EOFError, OSError):
            pass
        raise WorkerDied(self._obituary())

    def _take(self) -> tuple[str, Any]:
        """One message; raises what the worker failed of."""
        kind, payload = self._up.recv()
        self._answered = time.monotonic()
        if kind == "user_error":
            raise payload
        if kind == "failed":
            raise RolloutError(f"the rollout worker failed:\n{payload}")
        if kind == "situation":
            self._situation = payload
        if kind == "ready":
            self._loaded = True  # whatever is waited for: it comes once
        return kind, _unwrap(payload) if kind == "group" else payload

    def _obituary(self) -> str:
        self._process.join(timeout=2.0)
        code = self._process.exitcode or 0
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"died (exit code {code})"
        memory = " (was there enough memory?)" if code == -signal.SIGKILL else ""
        return f"the rollout worker {how}{memory}; the run can be continued with --resume"


def make_rollouts(
    spec: WorkerSpec, note: Callable[[str], None] = lambda text: None, watch: StallWatch = NOBODY
) -> Rollouts:
    """As `cluster.kind` and `run.processes` say. `watch` is told how long the driver waits for a worker."""
    if spec.config.cluster.kind == "ray":
        if spec.config.engine.kind == "sglang" and spec.config.engine.sync == "tensor":
            raise ConfigError(
                "engine.sync = 'tensor' hands over the memory of a GPU that learner and server share, and servers on a "
                "cluster share none with it: use distributed, or disk (the tensors then travel through Ray)"
            )
        from agentgym.trainers.cluster.rollouts import RayRollouts

        return RayRollouts(spec, note, watch)
    if spec.config.rollout.workers > 1:
        raise ConfigError("rollout.workers: more than one takes a cluster (--cluster=ray)")
    return ProcessRollouts(spec, watch) if spec.config.run.processes == 2 else LocalRollouts(spec, watch)


def _unwrap(group: Group | WorkerFailed) -> Group:
    if isinstance(group, WorkerFailed):
        raise RolloutError(f"the rollout worker failed:\n{group.traceback}")
    return group


def _worker_main(spec: WorkerSpec, down: Any, up: Any) -> None:
    """Body of the worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides when to stop
    outbox = Outbox(up)
    try:
        asyncio.run(_serve(spec, down, outbox))
        return
    except UserError as e:
        outbox.put("user_error", e)
    except BaseException:
        outbox.put("failed", traceback.format_exc())
    outbox.flush()


async def _serve(spec: WorkerSpec, down: Any, up: Outbox) -> None:
    loop = asyncio.get_running_loop()
    inbox: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()

    def read() -> None:
        while True:
            try:
                message = down.recv()
            except (EOFError, OSError):
                os._exit(1)  # the driver is gone: leave no orphan, whatever is under way
            if message[0] == "situation":  # from this thread: it may be that the loop does not turn
                up.put("situation", worker.situation())
                continue
            loop.call_soon_threadsafe(inbox.put_nowait, message)

    worker = Worker(spec, lambda group: up.put("group", group))
    threading.Thread(target=read, daemon=True).start()
    gc.collect()
    gc.freeze()  # what is loaded stays: each full collection over it would stop all episodes for tens of milliseconds
    up.put("ready", None)
    try:
        await _obey(worker, inbox, up)
    finally:
        worker.closing = True  # what ends us is to be told, and not the groups that end with us


async def _obey(worker: Worker, inbox: asyncio.Queue[tuple[str, Any]], up: Outbox) -> None:
    while True:
        kind, payload = await inbox.get()
        if kind == "play":
            for request in payload:
                worker.submit(request)
        elif kind == "weights":
            await worker.update_weights(payload)
            up.put("weights", payload.version)
        elif kind == "stats":
            up.put("stats", worker.stats())
        elif kind == "close":
            await worker.aclose()
            return
