"""Ranks 1 and up do what rank 0 tells them: here they are processes of this machine. None outlives rank 0.

A rank that fails says why and ends; rank 0, which may wait for it within a collective operation, then fails too (gloo
at once, NCCL after the timeout) and tells the cause.
"""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import os
import pickle
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from agentgym.errors import AgentGymError, ConfigError, RunError, UserError
from agentgym.trainers.ranks.team import Rendezvous

CLOSING = 10.0
"""Seconds that a rank has to end when it is told to; then it is ended."""
LAST_WORDS = 5.0
"""Seconds that rank 0, having failed, waits for another's account of it."""
LOCAL = "127.0.0.1"
_NETWORK = ("gloo/transport", "Gloo connectFullMesh", "DistNetworkError", "DistBackendError", "DistStoreError")
"""What a rank's failure mentions where another has gone away."""


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

    @property
    def second_hand(self) -> bool:
        """Whether it seems to tell of a failure that is a consequence of another rank's."""
        return _second_hand(self.traceback)


def _second_hand(text: str) -> bool:
    return any(word in text for word in _NETWORK)


Serve = Callable[[int, Rendezvous], Callable[[Order], Any]]
"""Made in the rank's process: takes the rank and where to meet, returns what obeys orders once all have met."""


class Follower(Protocol):
    """Rank 0's handle on another. Where its process runs is its own affair: this machine, or an actor elsewhere."""

    def arrive(self) -> None:
        """Wait until its process is there. Raises why it cannot be."""

    def send(self, order: Order) -> None: ...

    def receive(self, patience: float) -> Answer | None:
        """Its next answer, None where none came within so many seconds. Raises `RankLost`."""

    def place(self, folder: Path) -> Path:
        """Where it is to write what belongs into `folder` of rank 0's disk."""

    def bring(self, folder: Path) -> None:
        """Have there what it wrote into `place(folder)`."""

    def close(self) -> None: ...


class Starter(Protocol):
    """Begins the other ranks, somewhere."""

    host: str
    """Of rank 0, as the others reach it."""
    apart: bool
    """Whether each is in a machine or container of its own: it sees its own GPU only."""
    last_words: float
    """Seconds within which a rank's death is known."""

    def seat(self, device: str) -> torch.device:
        """Rank 0's own."""

    def start(self, serve: Serve, rank: int, rendezvous: Rendezvous) -> Follower: ...

    def close(self) -> None:
        """When all have been closed."""


class Processes:
    """Implements `Starter`: processes of this machine, a GPU each."""

    host, apart, last_words = LOCAL, False, LAST_WORDS

    def seat(self, device: str) -> torch.device:
        return rank_device(device, 0)

    def start(self, serve: Serve, rank: int, rendezvous: Rendezvous) -> Follower:
        return ProcessFollower(serve, rank, rendezvous)

    def close(self) -> None:
        """Nothing is held."""


def rank_device(name: str, index: int) -> torch.device:
    """The GPU of that number among those that this process sees, where `name` asks for one."""
    if not name.startswith("cuda"):
        return torch.device(name)
    if index >= torch.cuda.device_count():
        raise ConfigError(f"learner.ranks: there is no GPU for rank {index}: {torch.cuda.device_count()} are visible")
    return torch.device("cuda", index)


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

    def arrive(self) -> None:
        """It has begun, and is met at the rendezvous."""

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

    def place(self, folder: Path) -> Path:
        return folder  # it writes to the same disk

    def bring(self, folder: Path) -> None:
        """It is there."""

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
    """All of them: one order to each, one answer from each. `last_words`: seconds within which a death is known."""

    def __init__(self, members: Sequence[Follower], timeout: float, last_words: float = LAST_WORDS):
        self._members, self._timeout, self._last_words = members, timeout, last_words
        self._number = 0
        self._cpu_s: dict[int, float] = {}

    @property
    def cpu_s(self) -> float:
        """CPU-seconds of all of them, up to their last answers."""
        return sum(self._cpu_s.values())

    def tell(self, name: str, args: Sequence[tuple[Any, ...]]) -> None:
        """Order `name` of each, with its own arguments."""
        self._number += 1
        try:
            for member, mine in zip(self._members, args, strict=True):
                member.send(Order(self._number, name, mine))
        except (TypeError, AttributeError, pickle.PicklingError, mp.ProcessError) as e:  # not even a byte is sent
            raise ConfigError(f"cannot be sent to the other ranks of the learner: {e}") from None

    def answers(self) -> list[Any]:
        """Of the last order. Raises what a rank failed of."""
        found = []
        until = time.monotonic() + self._timeout
        for rank, member in enumerate(self._members, 1):
            while (answer := member.receive(1.0)) is None:
                if time.monotonic() > until:
                    raise RankError(f"rank {rank} of the learner has not answered for {self._timeout:g} s")
            if answer.second_hand:
                self.blame(_failure(rank, answer))
            found.append(_unwrap(rank, answer))
            self._cpu_s[rank] = answer.cpu_s
        return found

    def blame(self, error: BaseException) -> None:
        """Raise the failure of another rank that `error`, met by this or another one, is a consequence of; else return.

        One that only tells that another has gone is raised where nothing better is heard."""
        hearsay: BaseException | None = None
        told = f"{type(error).__name__}: {error}"
        until = time.monotonic() + (self._last_words if _second_hand(told) else LAST_WORDS)
        silent = dict(enumerate(self._members, 1))
        while silent and time.monotonic() < until:
            for rank, member in list(silent.items()):
                if (answer := member.receive(0.0)) is None:
                    continue
                if answer.second_hand:
                    hearsay = hearsay or _failure(rank, answer)
                    del silent[rank]
                else:
                    _unwrap(rank, answer, error)
            time.sleep(0.05)
        if hearsay is not None and not isinstance(error, RankError):
            raise hearsay from error

    def places(self, folder: Path) -> list[Path]:
        """Where each is to write what belongs into rank 0's `folder`."""
        return [member.place(folder) for member in self._members]

    def bring(self, folder: Path) -> None:
        """Have there what each wrote."""
        for member in self._members:
            member.bring(folder)

    def close(self) -> None:
        for member in self._members:
            member.close()


def _unwrap(rank: int, answer: Answer, cause: BaseException | None = None) -> Any:
    if answer.error is not None:
        raise answer.error from cause
    if answer.traceback:
        raise _failure(rank, answer) from cause
    return answer.value


def _failure(rank: int, answer: Answer) -> RankError:
    return RankError(f"rank {rank} of the learner failed:\n{answer.traceback}")


def compare(mine: Mapping[str, Any], theirs: Sequence[Mapping[str, Any]]) -> None:
    """Raise `RunError` naming what a rank has differently."""
    for rank, other in enumerate(theirs, 1):
        for name, value in mine.items():
            if other.get(name) != value:
                raise RunError(
                    f"the ranks of the learner disagree: {name} is {value!r} on rank 0 and {other.get(name)!r} on rank "
                    f"{rank}; every machine needs the same versions, configuration and model"
                )


class Duty:
    """What a rank does, in its own process: join the others, then one order after the other, and account for each."""

    def __init__(self, serve: Serve, rank: int, rendezvous: Rendezvous):
        self._serve, self._rank, self._rendezvous = serve, rank, rendezvous
        self._obey: Callable[[Order], Any] | None = None
        self._number = 0
        self.failed = False
        """Then it has to end at once when it has answered: another may wait for it in a collective operation."""

    def join(self) -> Answer:
        return self._account(self._join)

    def __call__(self, read: Callable[[], Order]) -> Answer:
        """`read` gives the order, which may fail, too."""
        return self._account(lambda: self._do(read()))

    def _join(self) -> None:
        self._obey = self._serve(self._rank, self._rendezvous)

    def _do(self, order: Order) -> Any:
        assert self._obey is not None, "join() comes first"
        self._number += 1
        if order.number != self._number:
            raise RunError(f"rank {self._rank} of the learner has come to order {self._number}, not {order.number}")
        return self._obey(order)

    def _account(self, work: Callable[[], Any]) -> Answer:
        try:
            return Answer(work(), time.process_time())
        except UserError as e:
            answer = Answer(error=e)
        except BaseException:
            answer = Answer(traceback=traceback.format_exc())
        self.failed = True
        return answer


def _main(serve: Serve, rank: int, rendezvous: Rendezvous, down: Any, up: Any) -> None:
    """Body of a rank's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 decides when to stop
    orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(down, orders), daemon=True).start()
    duty = Duty(serve, rank, rendezvous)
    answer = duty.join()
    while not duty.failed:
        answer = duty(orders.get)
        if not duty.failed:
            up.send(answer)
    with contextlib.suppress(OSError):
        up.send(answer)
    os._exit(1)


def _read(down: Any, orders: queue.SimpleQueue[Order]) -> None:
    """Hand orders on. When rank 0 is gone or done the process ends, whatever it is waiting for."""
    while True:
        try:
            orders.put(down.recv())
        except (EOFError, OSError):
            os._exit(0)
        except Exception:  # what was sent cannot be made here, as a function of a file that is not there
            traceback.print_exc()
            os._exit(1)
