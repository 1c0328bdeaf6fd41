"""The memory limit where there are no control groups: look at what each session holds, and end the greedy."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

PERIOD = 0.02
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Watch:
    """One session under watch. `fired`: it held too much and was ended."""

    init: int
    pidfd: int
    limit: int
    fired: bool = False


@dataclass(slots=True)
class Watchdog:
    """A thread that runs while sessions run code; a loop that is busy could not be late by 20 ms."""

    _watches: dict[int, Watch] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _wake: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    @contextlib.contextmanager
    def over(self, init: int, pidfd: int, limit: int) -> Iterator[Watch]:
        watch = Watch(init, pidfd, limit)
        with self._lock:
            self._watches[init] = watch
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="sandbox-watchdog", daemon=True)
                self._thread.start()
        self._wake.set()
        try:
            yield watch
        finally:
            with self._lock:
                self._watches.pop(init, None)

    def _run(self) -> None:
        while True:
            with self._lock:
                watches = list(self._watches.values())
                if not watches:
                    self._wake.clear()
            for watch in watches:
                if not watch.fired and held(watch.init) > watch.limit and held(watch.init, _share) > watch.limit:
                    watch.fired = True
                    with contextlib.suppress(OSError):  # it has ended by itself
                        signal.pidfd_send_signal(watch.pidfd, signal.SIGKILL)
            if watches:
                threading.Event().wait(PERIOD)
            else:
                self._wake.wait()


def held(init: int, of: Callable[[int], int] | None = None) -> int:
    """Bytes of memory that a process and all below it hold, each as `of` says.

    `_resident` is quick, and counts a page that a fork shares once for each; `_share` counts it once in all, and reads
    the process's whole page table.
    """
    total, pending = 0, [init]
    while pending:
        pid = pending.pop()
        with contextlib.suppress(OSError, ValueError):  # it ended while we looked
            total += (of or _resident)(pid)
            for task in os.listdir(f"/proc/{pid}/task"):
                pending += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return total


def _resident(pid: int) -> int:
    resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
    return (int(resident) - int(shared)) * PAGE


def _share(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except PermissionError:
        return _resident(pid)
    kib = {line.partition(":")[0]: int(line.split()[1]) for line in lines[1:]}
    return (kib["Pss"] - kib.get("Pss_File", 0)) << 10
