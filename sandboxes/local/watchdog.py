"""The limits that no part of the kernel holds here: look at what each session has, and end the greedy."""

from __future__ import annotations

import contextlib
import errno
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
    """One session under watch; a limit of 0 is none. `fired`: what it had too much of, and was ended for."""

    init: int
    pidfd: int
    parting: signal.Signals
    memory: int = 0
    processes: int = 0
    folder: str = ""
    disk: int = 0
    fired: str = ""

    def look(self) -> str:
        """Which limit it is beyond."""
        if self.memory or self.processes:
            memory, processes = held(self.init)
            if self.memory and memory > self.memory and held(self.init, _share)[0] > self.memory:
                return "memory"
            if self.processes and processes > self.processes:
                return "processes"
        return "disk" if self.folder and occupied(self.folder, self.disk) > self.disk else ""


@dataclass(slots=True)
class Watchdog:
    """A thread that runs while sessions run code; a loop that is busy could not be late by 20 ms."""

    _watches: dict[int, Watch] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _wake: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    @contextlib.contextmanager
    def over(self, watch: Watch) -> Iterator[Watch]:
        with self._lock:
            self._watches[watch.init] = watch
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="sandbox-watchdog", daemon=True)
                self._thread.start()
        self._wake.set()
        try:
            yield watch
        finally:
            with self._lock:
                self._watches.pop(watch.init, None)

    def _run(self) -> None:
        while True:
            with self._lock:
                watches = list(self._watches.values())
                if not watches:
                    self._wake.clear()
            for watch in watches:
                if not watch.fired and (beyond := watch.look()):
                    watch.fired = beyond
                    with contextlib.suppress(OSError):  # it has ended by itself
                        signal.pidfd_send_signal(watch.pidfd, watch.parting)
            if watches:
                threading.Event().wait(PERIOD)
            else:
                self._wake.wait()


def held(init: int, of: Callable[[int], int] | None = None) -> tuple[int, int]:
    """(bytes of memory, number) of a process and all below it, the memory of each as `of` says.

    `_resident` is quick, and counts a page that a fork shares once for each; `_share` counts it once in all, and reads
    the process's whole page table.
    """
    total, count, pending = 0, 0, [init]
    while pending:
        pid = pending.pop()
        with contextlib.suppress(OSError, ValueError):  # it ended while we looked
            total += (of or _resident)(pid)
            for task in os.listdir(f"/proc/{pid}/task"):
                count += 1
                pending += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return total, count


def occupied(folder: str, enough: int) -> int:
    """Bytes on the disk below a folder, an entry at least a block; the count may stop beyond `enough`."""
    total, pending = 0, [folder]
    while pending and total <= enough:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    total += max(PAGE, entry.stat(follow_symlinks=False).st_blocks * 512)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    if total > enough:
                        break
        except OSError as e:
            if e.errno == errno.ENAMETOOLONG:
                return enough + 1  # what lies deeper cannot be counted
            continue  # it is gone, or closed: then nothing more is written to it
    return total


def _resident(pid: int) -> int:
    # pages of files that are mapped are not counted: the kernel takes them back when it needs them
    words = Path(f"/proc/{pid}/status").read_text().split()
    return sum(int(words[words.index(name) + 1]) << 10 for name in ("RssAnon:", "RssShmem:"))


def _share(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except PermissionError:
        return _resident(pid)
    kib = {line.partition(":")[0]: int(line.split()[1]) for line in lines[1:]}
    return (kib["Pss"] - kib.get("Pss_File", 0)) << 10
