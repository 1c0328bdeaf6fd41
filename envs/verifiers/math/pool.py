"""Hands jobs to worker processes from any thread, any event loop, and before or after a fork.

One daemon thread a process owns everything here: the zygote that forks the workers, their sockets, the queue. Callers
put a job down and hold a future; no signal, no event loop and no main thread is needed. A worker that spends its
processor time is killed by the kernel (see `zygote`), a spare takes its place at once and a new spare is forked.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from agentgym.envs.verifiers.math.extract import Value
from agentgym.types import Outcome

WORKERS = max(4, min(8, os.cpu_count() or 1))
SPARE = 1
SLOW = 0.1
"""Seconds of the clock after which a job no longer counts as one of those that may work at a time: others go on."""
STALLED = 15.0
"""Seconds of the clock after which a job has not been given the processor time that it is due: the machine's fault."""
START_SECONDS = 60.0
MOST_STARTS = 2
"""Zygotes in a row that ended before their first worker; then the jobs that wait are told of it."""

HERE = Path(__file__).resolve().parent
_PACKAGES = "agentgym", "agentgym.envs", "agentgym.envs.verifiers", "agentgym.envs.verifiers.math"
_FOLDERS = HERE.parents[2] / "agentgym", HERE.parents[1], HERE.parent, HERE
# the packages without their __init__: a zygote needs neither gymnasium nor the names they hand on
_START = """
import sys, types
for name, folder in zip(sys.argv[1].split(), sys.argv[2:6]):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [folder]
from agentgym.envs.verifiers.math.zygote import main
main(int(sys.argv[6]), int(sys.argv[7]))
"""
_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Job:
    request: bytes
    future: Future[Outcome] = field(default_factory=Future)
    gold_read: bool = False
    deaths: int = 0

    def end(self, outcome: Outcome) -> None:
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(outcome)


@dataclass(slots=True, eq=False)
class _Worker:
    pid: int
    socket: socket.socket
    job: _Job | None = None
    since: float = 0.0
    deadline: float = 0.0
    stalled: bool = False
    received: bytes = b""

    def slow(self, now: float) -> bool:
        return self.job is not None and now > self.since + SLOW


class Pool:
    """Workers of one process. They start with the first job (about a second); `warm` starts them before."""

    def __init__(self, workers: int = WORKERS, stalled: float = STALLED):
        self._most = workers
        self._stalled = stalled
        self._queue: deque[_Job] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._workers: dict[int, _Worker] = {}
        self._asked = 0  # forks that were asked for and have not come
        self._zygote: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._told = b""
        self._starts = 0
        self._start_by = 0.0

    def submit(self, gold: Value, answer: Value | None) -> Future[Outcome]:
        """The verdict to come; without an answer, `correct` tells that the gold can be read."""
        said = [None, False] if answer is None else [answer.text, answer.prose]
        job = _Job(json.dumps([gold.text, gold.prose, *said]).encode() + b"\n")
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
        zygote = (self._zygote.pid,) if self._zygote else ()
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
        sockets = [self._woken, self._waker, *(worker.socket for worker in self._workers.values())]
        for each in [*sockets, *([self._control] if self._control else [])]:
            each.close()
        self._selector.close()
        if self._zygote is not None:
            self._zygote.returncode = 0  # not a child of this process: nothing to wait for

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

    def _hear(self, source: object, worker: _Worker | None) -> None:
        if source is self._woken:
            with contextlib.suppress(BlockingIOError):
                self._woken.recv(4096)
        elif source is self._control:
            self._hear_zygote()
        elif worker is not None and self._workers.get(worker.pid) is worker:  # not buried a moment ago
            self._hear_worker(worker)

    # -- the zygote ---------------------------------------------------------------------------------------------------

    def _start_zygote(self) -> None:
        if self._zygote is not None:
            return
        if self._starts >= MOST_STARTS:
            _log.error("the math verifier's process does not start; its verdicts are errors until it does")
            self._starts = 0
            self._give_up()
            return
        self._starts += 1
        ours, theirs = socket.socketpair()
        folders = [str(folder) for folder in _FOLDERS]
        arguments = [" ".join(_PACKAGES), *folders, str(theirs.fileno()), str(os.getpid())]
        command = [sys.executable, "-P", "-W", "ignore", "-c", _START, *arguments]
        with theirs:
            self._zygote = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
            )
        self._control, self._told, self._asked = ours, b"", 0
        self._start_by = time.monotonic() + START_SECONDS
        self._selector.register(ours, selectors.EVENT_READ)

    def _give_up(self) -> None:
        with self._lock:
            jobs, self._queue = list(self._queue), deque()
        for job in jobs:
            job.end(Outcome.error)
        self._selector.select()  # until there is a job again

    def _fork_missing(self) -> None:
        missing = self._most + SPARE + self._slow() - len(self._workers) - self._asked
        if self._control is None or missing <= 0:
            return
        with contextlib.suppress(OSError):
            self._control.sendall(b'{"fork": 1}\n' * missing)
            self._asked += missing

    def _slow(self) -> int:
        """How many workers have been at one job for long; those beyond twice the usual number are not let pass."""
        now = time.monotonic()
        return min(sum(worker.slow(now) for worker in self._workers.values()), 2 * self._most)

    def _hear_zygote(self) -> None:
        assert self._control is not None
        try:
            received, fds, _, _ = socket.recv_fds(self._control, 65536, 64)
        except OSError:
            received, fds = b"", []
        if not received:
            self._lose_zygote()
            return
        *lines, self._told = (self._told + received).split(b"\n")
        for line in lines:
            told = json.loads(line)
            if "pid" in told:
                self._add(told["pid"], socket.socket(fileno=fds.pop(0)))
            else:
                self._bury(told["ended"], told["signal"])

    def _add(self, pid: int, connection: socket.socket) -> None:
        connection.settimeout(1.0)
        self._asked -= 1
        self._starts = 0
        worker = self._workers[pid] = _Worker(pid, connection)
        self._selector.register(connection, selectors.EVENT_READ, worker)

    def _lose_zygote(self) -> None:
        """Its workers die with it; what they had under way is done again by those of the next one."""
        if self._control is not None:
            self._selector.unregister(self._control)
            self._control.close()
        if self._zygote is not None:
            self._zygote.kill()
            self._zygote.wait()
        self._control = self._zygote = None
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
            worker = idle.pop(0)
            worker.job, worker.since = job, time.monotonic()
            worker.deadline = worker.since + self._stalled
            job.gold_read = False
            busy += 1
            try:
                worker.socket.sendall(job.request)
            except OSError:
                worker.stalled = True  # it is ending; `_bury` puts the job back

    def _hear_worker(self, worker: _Worker) -> None:
        try:
            received = worker.socket.recv(4096)
        except OSError:
            received = b""
        if not received:
            worker.stalled = True  # the zygote tells of what it died
            with contextlib.suppress(KeyError, ValueError):  # buried already
                self._selector.unregister(worker.socket)
            return
        *lines, worker.received = (worker.received + received).split(b"\n")
        for line in lines:
            job = worker.job
            if job is None:
                continue
            if line == b"gold":
                job.gold_read = True
            else:
                worker.job = None
                job.end(Outcome(line.decode()))

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
        if (outcome := _cause(job, signum, worker.deadline <= time.monotonic())) is not None:
            job.end(outcome)
            return
        with self._lock:
            self._queue.appendleft(job)

    def _patience(self) -> float | None:
        """Seconds until something is overdue; None where nothing can be."""
        now = time.monotonic()
        working = [worker for worker in self._workers.values() if worker.job is not None]
        due = [worker.deadline if worker.slow(now) else worker.since + SLOW for worker in working]
        if self._zygote is not None and not self._workers:
            due.append(self._start_by)
        return max(0.0, min(due) - time.monotonic()) + 0.001 if due else None

    def _kill_stalled(self) -> None:
        now = time.monotonic()
        if self._zygote is not None and not self._workers and now > self._start_by:
            self._lose_zygote()
        for worker in self._workers.values():
            if worker.job is not None and now > worker.deadline and not worker.stalled and self._control is not None:
                worker.stalled = True
                with contextlib.suppress(OSError):
                    self._control.sendall(json.dumps({"kill": worker.pid}).encode() + b"\n")
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
        if self._control is not None:
            self._control.close()
        if self._zygote is not None:
            self._zygote.kill()  # the workers follow it
            self._zygote.wait()
        self._zygote = self._control = None


def _cause(job: _Job, signum: int, overdue: bool) -> Outcome | None:
    """The verdict on a job whose worker died, None to try it again.

    Its processor time or its memory spent is the answer's doing, once the gold was read; a kill from outside is not.
    """
    job.deaths += 1
    if signum == signal.SIGPROF:
        return Outcome.timeout if job.gold_read else Outcome.error
    if overdue:
        return Outcome.error
    if job.deaths < (2 if job.gold_read else 2 * WORKERS):  # unread: the worker may have been dead already
        return None
    own = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
    return Outcome.timeout if signum in own and job.gold_read else Outcome.error


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
