"""The time that a coroutine itself runs, without what others do while it waits; and a guard over each such stretch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from time import monotonic, thread_time
from types import coroutine
from typing import Any, TypeVar

from agentgym.activity import Activity

T = TypeVar("T")


@coroutine
def metered(
    work: Awaitable[T], spend: Callable[[float], None], activity: Activity | None = None
) -> Generator[Any, Any, T]:
    """Await `work`; `spend` is told the CPU-seconds of this thread that each of its stretches took.

    activity: that of the episode whose code it is: where a stretch goes on after its time, `Overrun` is raised in it.
    """
    steps: Any = work.__await__()
    resume, given = steps.send, None
    guard = activity.guard if activity is not None else None
    while True:
        began = thread_time()
        try:
            if guard is not None and activity is not None:
                guard.stretch = (activity, monotonic())
            waiting = resume(given)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            if guard is not None:
                guard.stretch = None
            spend(thread_time() - began)
        try:
            resume, given = steps.send, (yield waiting)
        except BaseException as thrown:  # a cancellation: it is for `work` to answer
            resume, given = steps.throw, thrown
