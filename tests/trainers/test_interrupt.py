"""The first interrupt asks, the second insists; before there is anything to save, the first is enough."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Iterator

import pytest

from agentgym.trainers.interrupt import Interrupt


@pytest.fixture
def told() -> queue.Queue[str]:
    return queue.Queue()


@pytest.fixture
def interrupt(told: queue.Queue[str]) -> Iterator[Interrupt]:
    made = Interrupt(told.put)
    yield made
    made.close()


def test_nothing_to_save_yet(interrupt: Interrupt, told: queue.Queue[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert told.empty()


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_the_first_asks_and_the_second_insists(
    interrupt: Interrupt, told: queue.Queue[str], number: int, name: str
) -> None:
    interrupt.put_off()
    interrupt.check()
    os.kill(os.getpid(), number)
    assert told.get(timeout=5.0) == name, "the user hears that it was heard"
    assert interrupt.requested
    with pytest.raises(KeyboardInterrupt):
        interrupt.check()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)


def test_what_listened_before_listens_again() -> None:
    former = signal.getsignal(signal.SIGINT)
    Interrupt().close()
    assert signal.getsignal(signal.SIGINT) is former


def test_another_thread_cannot_listen_and_does_not_try() -> None:
    former, made = signal.getsignal(signal.SIGINT), []
    thread = threading.Thread(target=lambda: made.append(Interrupt()))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is former
    made[0].check()
