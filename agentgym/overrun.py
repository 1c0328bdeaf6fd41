"""Stops code that holds up the event loop beyond its time: a tool that sleeps, computes or waits for ever.

An event loop cannot interrupt what does not give control back. So each stretch of an env's own code is marked
(`rollout.metered`), and a thread that sees one run beyond its limit has `Overrun` raised right there: in the main
thread by a signal, which ends Python code and calls that wait in the system (sleep, a socket, a process, a lock); in
another thread, where Python takes no signals, between two instructions of Python code. C code that neither returns nor
looks at signals is not stopped, nor is what waits in the system outside of the main thread: a run's workers therefore
play in the main threads of processes.
"""

from __future__ import annotations

import ctypes
import signal
import threading
from time import monotonic
from typing import Any

from agentgym.activity import Activity

SIGNAL = signal.SIGURG
"""Nobody else's here, and ignored by default: one that comes late does nothing."""
TICK = 0.1
"""Seconds between two looks, and how late an overrun may be noticed."""
HOLD = 30.0
"""Seconds for which a tool that is not async may hold up the loop, and with it all other episodes. Its next calls run
in threads."""

Stretch = tuple[Activity, float]


class Overrun(BaseException):
    """The episode's time was over while its env or tool held up the event loop. No `Exception`: it is not for the code
    that it is raised in."""


class Guard:
    """Of one thread's event loop. `stretch` is what of an env's code runs in it right now, and since when."""

    def __init__(self) -> None:
        self.stretch: Stretch | None = None
        self._late: Stretch | None = None
        self._users = 0
        self._ended = threading.Event()
        self._before: Any = None
        self._thread = threading.current_thread()
        self._main = self._thread is threading.main_thread()

    def held_up(self) -> Stretch | None:
        """Whose code runs in the loop's thread right now, and for how many seconds it has."""
        stretch = self.stretch
        return None if stretch is None else (stretch[0], monotonic() - stretch[1])

    def join(self) -> Guard:
        """One user more, who says `leave` in the end."""
        self._users += 1
        if self._users == 1:
            if self._main:
                self._before = signal.signal(SIGNAL, self._stop)
            self._ended = threading.Event()
            threading.Thread(target=self._look, args=(self._ended,), name="overruns", daemon=True).start()
        return self

    def leave(self) -> None:
        """One user less."""
        self._users -= 1
        if not self._users:
            self._ended.set()
            if self._main and threading.current_thread() is self._thread:
                signal.signal(SIGNAL, self._before)

    def _look(self, ended: threading.Event) -> None:
        while not ended.wait(TICK):
            stretch = self.stretch
            if stretch is not None and monotonic() > _limit(*stretch):
                self._late = stretch
                self._interrupt()

    def _interrupt(self) -> None:
        ident = self._thread.ident
        assert ident is not None
        if self._main:
            signal.pthread_kill(ident, SIGNAL)
        elif self._late is self.stretch:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(Overrun))

    def _stop(self, *_: Any) -> None:
        """The signal's handler, in the main thread: between two of its instructions nothing else changes `stretch`."""
        late, self._late = self._late, None
        if late is not None and late is self.stretch:
            raise Overrun


def _limit(activity: Activity, began: float) -> float:
    """A tick more than the loop's own deadline, which comes first where the loop still turns."""
    limit = activity.limit
    if activity.inline:
        limit = min(limit, began + HOLD)
    return max(limit, began) + TICK


_guards: dict[int, Guard] = {}


def guard_here() -> Guard:
    """The guard of this thread, with a user more."""
    ident = threading.get_ident()
    found = _guards.get(ident)
    if found is None or found._thread is not threading.current_thread():
        found = _guards[ident] = Guard()
    return found.join()
