"""Ranks 1 and up: processes of this machine that do what rank 0 tells them. None outlives rank 0.

A rank that fails says why and ends; rank 0, which may wait for it within a collective operation, then fails too (gloo
at once, NCCL after the timeout) and tells the cause.
"""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import os
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from agentgym.errors import AgentGymError, ConfigError, RunError, UserError
from agentgym.trainers.ranks.team import Rendezvous

CLOSING = 10.0
"""Seconds that a rank has to end when it is told to; then it is ended."""
LAST_WORDS = 5.0
"""Seconds that rank 0, having failed, waits for another's account of it."""


class RankError(AgentGymError):
    """A rank of the learner broke."""


class RankLost(RankError, RunError):
    """Its process is gone, often killed for memory: the user can go on with the run."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a rank is to do: call the method `name` of its learner. `number` counts the orders."""

    number: int
    name: str
    args: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    value: Any = None
    cpu_s: float = 0.0
    """Of the rank's process so far."""
    error: UserError | None = None
    traceback: str = ""


Serve = Callable[[int, Rendezvous], Callable[[Order], Any]]
"""Made in the rank's process: takes the rank and where to meet, returns what obeys orders once all have met."""


class Follower(Protocol):
    """Rank 0's handle on another. Where its process runs is its own affair: this machine, or an actor elsewhere."""

    def send(self, order: Order) -> None: ...

    def receive(self, patience: float) -> Answer | None:
        """Its next answer, None where none came within so many seconds. Raises `RankLost`."""
        ...

    def close(self) -> None: ...


class ProcessFollower:
    """A process of this machine."""

    def __init__(self, serve: Serve, rank: int, rendezvous: Rendezvous):
        context = mp.get_context("spawn")
        down, self._down = context.Pipe(duplex=False)
        self._up, up = context.Pipe(duplex=False)
        self._rank = rank
        self._process = context.Process(
            target=_main, args=(serve, rank, rendezvous, down, up), name=f"learner-rank-{rank}", daemon=True
        )
        self._process.start()
        down.close()
        up.close()

    def send(self, order: Order) -> None:
        try:
            self._down.send(order)
        except OSError:
            raise RankLost(self._obituary()) from None

    def receive(self, patience: float) -> Answer | None:
        try:
            if not self._up.poll(patience):
                return None
            answer: Answer = self._up.recv()
        except (EOFError, OSError):
            raise RankLost(self._obituary()) from None
        return answer

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._down.close()  # which it takes as the end
        self._process.join(CLOSING)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._up.close()

    def _obituary(self) -> str:
        self._process.join(timeout=2.0)
        code = self._process.exitcode or 0
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"died (exit code {code})"
        memory = " (was there enough memory?)" if code == -signal.SIGKILL else ""
        return f"rank {self._rank} of the learner {how}{memory}; the run can be continued with --resume"


class Followers:
    """All of them: one order to each, one answer from each."""

    def __init__(self, members: Sequence[Follower], timeout: float):
        self._members, self._timeout = members, timeout
        self._number = 0
        self._cpu_s = [0.0] * len(members)

    @property
    def cpu_s(self) -> float:
        """CPU-seconds of all of them, up to their last answers."""
        return sum(self._cpu_s)

    def tell(self, name: str, args: Sequence[tuple[Any, ...]]) -> None:
        """Order `name` of each, with its own arguments."""
        self._number += 1
        try:
            for member, mine in zip(self._members, args, strict=True):
                member.send(Order(self._number, name, mine))
        except (TypeError, AttributeError, mp.ProcessError) as e:  # not even the first byte is sent
            raise ConfigError(f"cannot be sent to the other ranks of the learner: {e}") from None

    def answers(self) -> list[Any]:
        """Of the last order. Raises what a rank failed of."""
        found = []
        until = time.monotonic() + self._timeout
        for rank, member in enumerate(self._members, 1):
            while (answer := member.receive(1.0)) is None:
                if time.monotonic() > until:
                    raise RankError(f"rank {rank} of the learner has not answered for {self._timeout:g} s")
            found.append(_unwrap(rank, answer))
            self._cpu_s[rank - 1] = answer.cpu_s
        return found

    def blame(self, error: BaseException) -> None:
        """Raise the failure of another rank that `error`, met by rank 0, is a consequence of; else return."""
        until = time.monotonic() + LAST_WORDS
        while time.monotonic() < until:
            for rank, member in enumerate(self._members, 1):
                if (answer := member.receive(0.1)) is not None:
                    _unwrap(rank, answer, error)

    def close(self) -> None:
        for member in self._members:
            member.close()


def _unwrap(rank: int, answer: Answer, cause: BaseException | None = None) -> Any:
    if answer.error is not None:
        raise answer.error from cause
    if answer.traceback:
        raise RankError(f"rank {rank} of the learner failed:\n{answer.traceback}") from cause
    return answer.value


def compare(mine: Mapping[str, Any], theirs: Sequence[Mapping[str, Any]]) -> None:
    """Raise `RunError` naming what a rank has differently."""
    for rank, other in enumerate(theirs, 1):
        for name, value in mine.items():
            if other.get(name) != value:
                raise RunError(
                    f"the ranks of the learner disagree: {name} is {value!r} on rank 0 and {other.get(name)!r} on rank "
                    f"{rank}; every machine needs the same versions, configuration and model"
                )


def _main(serve: Serve, rank: int, rendezvous: Rendezvous, down: Any, up: Any) -> None:
    """Body of a rank's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 decides when to stop
    orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(down, orders), daemon=True).start()
    answer = Answer()
    try:
        obey = serve(rank, rendezvous)
        number = 0
        while (order := orders.get()) is not None:
            number += 1
            if order.number != number:
                raise RunError(f"rank {rank} of the learner has come to order {number}, rank 0 to {order.number}")
            value = obey(order)
            up.send(Answer(value, time.process_time()))
        return
    except UserError as e:
        answer = Answer(error=e)
    except BaseException:
        answer = Answer(traceback=traceback.format_exc())
    with contextlib.suppress(OSError):
        up.send(answer)
    os._exit(1)  # at once: rank 0 may be waiting for this rank in a collective operation


def _read(down: Any, orders: queue.SimpleQueue[Order | None]) -> None:
    """Hand orders on. When rank 0 is gone or done the process ends, whatever it is waiting for."""
    while True:
        try:
            orders.put(down.recv())
        except (EOFError, OSError):
            os._exit(0)
        except Exception:  # what was sent cannot be made here, as a function of a file that is not there
            traceback.print_exc()
            os._exit(1)
