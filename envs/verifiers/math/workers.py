"""A comparison to be made, the worker process that makes it, and what its death says of the answer."""

from __future__ import annotations

import json
import signal
import socket
import time
from concurrent.futures import Future
from dataclasses import dataclass, field

from agentgym.envs.verifiers.math.extract import Value
from agentgym.types import Outcome

SLOW = 0.1
"""Seconds of the clock after which a job no longer counts as one of those that may work at a time: others go on."""


@dataclass(slots=True, eq=False)
class Job:
    """A line for a worker, and the verdict that somebody waits for."""

    request: bytes
    future: Future[Outcome] = field(default_factory=Future)
    gold_read: bool = False
    deaths: int = 0

    @classmethod
    def of(cls, gold: Value, answer: Value | None) -> Job:
        said = [None, False] if answer is None else [answer.text, answer.prose]
        return cls(json.dumps([gold.text, gold.prose, *said]).encode() + b"\n")

    def end(self, outcome: Outcome) -> None:
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(outcome)


@dataclass(slots=True, eq=False)
class Worker:
    """A process that the zygote forked. Its `socket` takes a job a line and gives the lines that `zygote` says."""

    pid: int
    socket: socket.socket
    job: Job | None = None
    since: float = 0.0
    deadline: float = 0.0
    stalled: bool = False
    """It is ending, or was told to."""
    received: bytes = b""

    def slow(self, now: float) -> bool:
        return self.job is not None and now > self.since + SLOW

    def begin(self, job: Job, seconds: float) -> None:
        """Hand it the job, to be done within `seconds` of the clock."""
        self.job, self.since = job, time.monotonic()
        self.deadline = self.since + seconds
        job.gold_read = False
        try:
            self.socket.sendall(job.request)
        except OSError:
            self.stalled = True  # it is ending; who buries it puts the job back

    def hear(self) -> bool:
        """Read what it says, and end its job where that is the verdict; False where it says nothing more."""
        try:
            received = self.socket.recv(4096)
        except OSError:
            received = b""
        if not received:
            self.stalled = True  # the zygote tells of what it died
            return False
        *lines, self.received = (self.received + received).split(b"\n")
        for line in lines:
            job = self.job
            if job is None:
                continue
            if line == b"gold":
                job.gold_read = True
            else:
                self.job = None
                job.end(Outcome(line.decode()))
        return True


def verdict_of_death(job: Job, signum: int, overdue: bool, tries: int) -> Outcome | None:
    """The verdict on a job whose worker died, None to try it again; at most `tries` times where the gold is unread.

    Its processor time or its memory spent is the answer's doing, once the gold was read; a kill from outside is not.
    """
    job.deaths += 1
    if signum == signal.SIGPROF:
        return Outcome.timeout if job.gold_read else Outcome.error
    if overdue:
        return Outcome.error
    if job.deaths < (2 if job.gold_read else tries):  # unread: the worker may have been dead already
        return None
    own = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
    return Outcome.timeout if signum in own and job.gold_read else Outcome.error
