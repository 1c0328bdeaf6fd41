"""Hands jobs to worker processes from any thread, any event loop, and before or after a fork.

One daemon thread a process owns everything here: the zygote that forks the workers, their sockets, the queue. Callers
put a job down and hold a future; no signal, no event loop and no main thread is needed. A worker that spends its
processor time is killed by the kernel (see `zygote`), a spare takes its place at once and a new spare is forked.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import selectors
import socket
import threading
import time
from collections import deque
from concurrent.futures import Future

from agentgym.envs.verifiers.math.extract import Value
from agentgym.envs.verifiers.math.forker import Born, Forker
from agentgym.envs.verifiers.math.workers import SLOW, Job, Worker, verdict_of_death
from agentgym.types import Outcome

WORKERS = max(4, min(8, os.cpu_count() or 1))
SPARE = 1
STALLED = 15.0
"""Seconds of the clock after which a job has not been given the processor time that it is due: the machine's fault."""
MOST_STARTS = 2
"""Zygotes in a row that ended before their first worker; then the jobs that wait are told of it."""
_log = logging.getLogger(__name__)


class Pool:
    """Workers of one process. They start with the first job (about a second); `warm` starts them before."""

    def __init__(self, workers: int = WORKERS, stalled: float = STALLED):
        self._most = workers
        self._stalled = stalled
        self._queue: deque[Job] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._workers: dict[int, Worker] = {}
        self._forker: Forker | None = None
        self._starts = 0

    def submit(self, gold: Value, answer: Value | None) -> Future[Outcome]:
        """The verdict to come; without an answer, `correct` tells that the gold can be read."""
        job = Job.of(gold, answer)
        with self._lock:
            if self._closing:
                job.end(Outcome.error)
                return job.future
            self._queue.append(job)
            self._run()
        return job.future

    def warm(self) -> None:
        """Start the workers now, without waiting for them."""
        with self._lock:
            if not self._closing:
                self._run()

    @property
    def pids(self) -> tuple[int, ...]:
        """The zygote's and the workers', for those who watch."""
        forker = self._forker
        zygote = (forker.pid,) if forker else ()
        return (*zygote, *list(self._workers))

    def close(self) -> None:
        """End every process; jobs that wait end as `error`. Again does nothing."""
        with self._lock:
            self._closing = True
            thread = self._thread
            self._wake()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5)

    def forget(self) -> None:
        """In a forked child: let go of the parent's sockets, touch none of its processes."""
        for each in (self._woken, self._waker, *(worker.socket for worker in self._workers.values())):
            each.close()
        if self._forker is not None:
            self._forker.forget()
        self._selector.close()

    def _run(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="agentgym-math", daemon=True)
            self._thread.start()
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            self._waker.send(b"w")

    def _serve(self) -> None:
        try:
            while not self._closing:
                self._start_zygote()
                self._fork_missing()
                self._assign()
                for key, _ in self._selector.select(self._patience()):
                    self._hear(key.fileobj, key.data)
                self._kill_stalled()
        except Exception:
            _log.exception("the math verifier's thread failed")
        finally:
            self._end()

    def _hear(self, source: object, worker: Worker | None) -> None:
        if source is self._woken:
            with contextlib.suppress(BlockingIOError):
                self._woken.recv(4096)
        elif self._forker is not None and source is self._forker.control:
            self._hear_zygote(self._forker)
        elif worker is not None and self._workers.get(worker.pid) is worker:  # not buried a moment ago
            self._hear_worker(worker)

    # -- the zygote ---------------------------------------------------------------------------------------------------

    def _start_zygote(self) -> None:
        if self._forker is not None:
            return
        if self._starts >= MOST_STARTS:
            _log.error("the math verifier's process does not start; its verdicts are errors until it does")
            self._starts = 0
            self._give_up()
            return
        self._starts += 1
        self._forker = Forker()
        self._selector.register(self._forker.control, selectors.EVENT_READ)

    def _give_up(self) -> None:
        with self._lock:
            jobs, self._queue = list(self._queue), deque()
        for job in jobs:
            job.end(Outcome.error)
        self._selector.select()  # until there is a job again

    def _fork_missing(self) -> None:
        if self._forker is None:
            return
        missing = self._most + SPARE + self._slow() - len(self._workers) - self._forker.asked
        if missing > 0:
            self._forker.fork(missing)

    def _slow(self) -> int:
        """How many workers have been at one job for long; those beyond twice the usual number are not let pass."""
        now = time.monotonic()
        return min(sum(worker.slow(now) for worker in self._workers.values()), 2 * self._most)

    def _hear_zygote(self, forker: Forker) -> None:
        events = forker.hear()
        if events is None:
            self._lose_zygote()
            return
        for event in events:
            if isinstance(event, Born):
                self._add(event.pid, event.socket)
            else:
                self._bury(event.pid, event.signal)

    def _add(self, pid: int, connection: socket.socket) -> None:
        connection.settimeout(1.0)
        self._starts = 0
        worker = self._workers[pid] = Worker(pid, connection)
        self._selector.register(connection, selectors.EVENT_READ, worker)

    def _lose_zygote(self) -> None:
        """Its workers die with it; what they had under way is done again by those of the next one."""
        if self._forker is not None:
            self._selector.unregister(self._forker.control)
            self._forker.close()
        self._forker = None
        for pid in list(self._workers):
            self._bury(pid, 0)

    # -- the workers --------------------------------------------------------------------------------------------------

    def _assign(self) -> None:
        idle = [worker for worker in self._workers.values() if worker.job is None and not worker.stalled]
        busy = len(self._workers) - len(idle) - self._slow()
        while idle and busy < self._most:
            with self._lock:
                if not self._queue:
                    return
                job = self._queue.popleft()
            if job.future.cancelled():
                continue
            idle.pop(0).begin(job, self._stalled)
            busy += 1

    def _hear_worker(self, worker: Worker) -> None:
        if not worker.hear():
            with contextlib.suppress(KeyError, ValueError):  # buried already
                self._selector.unregister(worker.socket)

    def _bury(self, pid: int, signum: int) -> None:
        worker = self._workers.pop(pid, None)
        if worker is None:
            return
        if worker.job is not None:
            with contextlib.suppress(OSError, ValueError):  # a verdict may have come just before the end
                worker.socket.settimeout(0)
                self._hear_worker(worker)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(worker.socket)
        worker.socket.close()
        job = worker.job
        if job is None:
            return
        overdue = worker.deadline <= time.monotonic()
        if (outcome := verdict_of_death(job, signum, overdue, 2 * WORKERS)) is not None:
            job.end(outcome)
            return
        with self._lock:
            self._queue.appendleft(job)

    def _patience(self) -> float | None:
        """Seconds until something is overdue; None where nothing can be."""
        now = time.monotonic()
        working = [worker for worker in self._workers.values() if worker.job is not None]
        due = [worker.deadline if worker.slow(now) else worker.since + SLOW for worker in working]
        if self._forker is not None and not self._workers:
            due.append(self._forker.start_by)
        return max(0.0, min(due) - time.monotonic()) + 0.001 if due else None

    def _kill_stalled(self) -> None:
        now = time.monotonic()
        if self._forker is not None and not self._workers and now > self._forker.start_by:
            self._lose_zygote()
        for worker in self._workers.values():
            if worker.job is not None and now > worker.deadline and not worker.stalled and self._forker is not None:
                worker.stalled = True
                self._forker.kill(worker.pid)
                worker.deadline = now

    def _end(self) -> None:
        with self._lock:
            self._closing = True
            jobs, self._queue = list(self._queue), deque()
        jobs += [worker.job for worker in self._workers.values() if worker.job is not None]
        for job in jobs:
            if not job.future.done():
                job.end(Outcome.error)
        for worker in self._workers.values():
            worker.socket.close()
        self._workers.clear()
        if self._forker is not None:
            self._forker.close()
        self._forker = None


_pool: Pool | None = None
_making = threading.Lock()


def shared_pool() -> Pool:
    """This process's pool; a forked child makes its own."""
    global _pool
    with _making:
        if _pool is None or _pool._closing:
            _pool = Pool()
            atexit.register(_pool.close)
        return _pool


def _forget_after_fork() -> None:
    global _pool, _making
    _making = threading.Lock()
    if _pool is not None:
        atexit.unregister(_pool.close)
        _pool.forget()
        _pool = None


os.register_at_fork(after_in_child=_forget_after_fork)
