"""A worker of the math verifier: the lines it reads and writes, and what its death says of an answer."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
from typing import Any

import pytest

from agentgym.envs.verifiers.math import compare, zygote
from agentgym.envs.verifiers.math.extract import Value
from agentgym.envs.verifiers.math.workers import Job, Worker, verdict_of_death
from agentgym.types import Outcome


class Ended(BaseException):
    """In place of the end of the process."""


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a worker would set on its process, for here it is the tests' own."""
    found: list[Any] = []

    def end(code: int) -> None:
        found.append(("exit", code))
        raise Ended

    monkeypatch.setattr(resource, "setrlimit", lambda which, to: found.append((which, to)))
    monkeypatch.setattr(signal, "setitimer", lambda which, seconds: found.append((which, seconds)))
    monkeypatch.setattr(signal, "signal", lambda which, handler: found.append((which, handler)))
    monkeypatch.setattr(os, "_exit", end)
    return found


def answers(*jobs: list[Any]) -> list[str]:
    """All that a worker says to `jobs`, after which its host is gone."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"".join(json.dumps(job).encode() + b"\n" for job in jobs))
        ours.shutdown(socket.SHUT_WR)
        with pytest.raises(Ended):
            zygote.work(theirs)
        theirs.shutdown(socket.SHUT_RDWR)
        return ours.recv(65536).decode().splitlines()


def test_a_job_a_line(limits: list[Any]) -> None:
    said = answers(
        ["\\sqrt{12}", False, "2\\sqrt{3}", False],
        ["\\sqrt{12}", False, "it is $2\\sqrt{5}$", True],
        ["\\sqrt{12}", False, "", False],
        ["\\sqrt{12}", False, "9^{9^9}", False],
        ["\\foo{3}", False, "3", False],
        ["\\frac{1}{2}", False, None, False],
    )
    verdicts = ["correct", "incorrect", "unparsable", "timeout"]
    assert said == [*(line for verdict in verdicts for line in ("gold", verdict)), "error", "gold", "correct"]
    assert limits[-1] == ("exit", 0)


def test_each_job_has_its_time_and_the_gold_has_more(limits: list[Any]) -> None:
    answers(["2", False, "3", False], ["\\foo{3}", False, "3", False])
    timers = [seconds for which, seconds in limits if which == signal.ITIMER_PROF]
    assert timers == [zygote.GOLD_SECONDS, zygote.JOB_SECONDS, 0, zygote.GOLD_SECONDS, 0]
    assert (signal.SIGPROF, signal.SIG_DFL) in limits  # whose end is the kernel's doing
    (memory,) = (to for which, to in limits if which == resource.RLIMIT_AS)
    assert memory[0] == memory[1] >= zygote._size() // 2 + zygote.MEMORY


@pytest.mark.parametrize(
    ("error", "verdict"), [(MemoryError, "timeout"), (RecursionError, "timeout"), (ValueError, "unparsable")]
)
def test_what_goes_wrong_is_the_answers_doing(
    error: type[Exception], verdict: str, limits: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> str:
        raise error("of sympy's")

    monkeypatch.setattr(compare, "compare", fails)
    assert answers(["2", False, "3", False]) == ["gold", verdict]


def test_a_worker_is_replaced_in_time(limits: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zygote, "JOBS", 2)
    assert answers(*[["2", False, "2", False]] * 3) == ["gold", "correct"] * 2


def test_the_hosts_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        worker, job = Worker(1, ours), Job.of(Value("2"), Value("3", True))
        worker.begin(job, 5.0)
        assert json.loads(theirs.recv(4096)) == ["2", False, "3", True]
        assert not worker.slow(worker.since)
        assert worker.slow(worker.since + 1)
        theirs.sendall(b"gol")
        assert worker.hear()
        assert not job.gold_read
        theirs.sendall(b"d\nincorrect\nsaid to nobody\n")
        assert worker.hear()
        assert (job.gold_read, job.future.result(0), worker.job) == (True, Outcome.incorrect, None)
        theirs.close()
        assert not worker.hear()
        assert worker.stalled


def test_a_job_for_a_worker_that_ended() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        worker = Worker(1, ours)
        worker.begin(Job.of(Value("2"), None), 5.0)
        assert worker.stalled


@pytest.mark.parametrize(
    ("signum", "overdue", "gold_read", "outcomes"),
    [
        (signal.SIGPROF, False, True, [Outcome.timeout]),
        (signal.SIGPROF, False, False, [Outcome.error]),
        (signal.SIGKILL, True, True, [Outcome.error]),
        (signal.SIGSEGV, False, True, [None, Outcome.timeout]),
        (signal.SIGKILL, False, True, [None, Outcome.error]),
        (signal.SIGSEGV, False, False, [None, None, None, Outcome.error]),
    ],
)
def test_what_a_death_says(signum: int, overdue: bool, gold_read: bool, outcomes: list[Outcome | None]) -> None:
    job = Job(b"", gold_read=gold_read)
    assert [verdict_of_death(job, signum, overdue, 4) for _ in outcomes] == outcomes
