"""Functions that are not async, in threads: as many as are needed, and a function that never ends holds up nobody else.

`asyncio.to_thread` has a few threads for everybody and waits for them when the program ends: a handful of calls that
hang would stop all others, and then the program's end.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from agentgym.errors import ToolFault

T = TypeVar("T")
Job = tuple[Callable[[], Any], "asyncio.Future[Any]"]

LEFT_BEHIND = 500
"""Calls that may still run after nobody waits for them any more."""
IDLE_SECONDS = 10.0
"""A thread without work ends after so long."""


class Threads:
    """Daemon threads, reused. All but the work itself belongs to event loops, any number of them."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self.left = 0
        """Calls that go on although their callers have gone."""

    async def run(self, function: Callable[..., T], **arguments: Any) -> T:
        """Call it in a thread, with this task's context. Cancelled, it goes on there, and its result is dropped."""
        if self.left >= LEFT_BEHIND:
            raise ToolFault(f"{self.left} calls of tools are still running, though their time is over: they never end")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        work = functools.partial(contextvars.copy_context().run, function, **arguments)
        self._submit((work, future))
        try:
            return await future
        except asyncio.CancelledError:
            if future.cancelled():
                with self._lock:
                    self.left += 1
            raise

    def _submit(self, job: Job) -> None:
        with self._lock:
            enough = self._idle > 0
            self._idle -= enough
        self._jobs.put(job)
        if not enough:
            threading.Thread(target=self._work, name="tool", daemon=True).start()

    def _work(self) -> None:
        while True:
            try:
                work, future = self._jobs.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._idle:  # else a job is on its way to this thread
                        self._idle -= 1
                        return
                continue
            self._do(work, future)
            del work, future
            with self._lock:
                self._idle += 1

    def _do(self, work: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        try:
            outcome: tuple[Any, BaseException | None] = work(), None
        except BaseException as e:
            outcome = None, e
        try:
            future.get_loop().call_soon_threadsafe(self._settle, future, *outcome)
        except RuntimeError:  # that loop is closed: nobody waits any more
            self._returned()

    def _settle(self, future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
        if future.cancelled():
            self._returned()
        elif isinstance(error, StopIteration):  # which no future takes
            future.set_exception(RuntimeError(f"StopIteration: {error}"))
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)

    def _returned(self) -> None:
        with self._lock:
            self.left = max(0, self.left - 1)


threads = Threads()
"""Those of the process."""
os.register_at_fork(after_in_child=threads.__init__)  # type: ignore[misc]  # threads do not survive a fork
