"""The time that a coroutine itself runs, without what others do while it waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from time import thread_time
from types import coroutine
from typing import Any, TypeVar

T = TypeVar("T")


@coroutine
def metered(work: Awaitable[T], spend: Callable[[float], None]) -> Generator[Any, Any, T]:
    """Await `work`; `spend` is told the CPU-seconds of this thread that each of its stretches took."""
    steps: Any = work.__await__()
    resume, given = steps.send, None
    while True:
        began = thread_time()
        try:
            waiting = resume(given)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            spend(thread_time() - began)
        try:
            resume, given = steps.send, (yield waiting)
        except BaseException as thrown:  # a cancellation: it is for `work` to answer
            resume, given = steps.throw, thrown
