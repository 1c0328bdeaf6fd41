"""Memory and process limits over all that a session starts, where this process may make control groups.

Version 2 (one tree) and version 1 (a tree a controller). A group is used again once its session has ended: making one
costs more than the session's first call.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
PREFIX = "agentgym-"


@dataclass(slots=True)
class Group:
    """The folders of one session's group, by controller (version 2: the same folder)."""

    memory: Path
    pids: Path
    version: int
    _events: int = -1
    """Where the kernel counts, kept open: it is read after every call."""
    _held: tuple[int, int] | None = None
    """The limits that it has from the session before."""

    def limit(self, memory: int, processes: int) -> None:
        if self._held == (memory, processes):
            return
        self._held = None
        if self.version == 2:
            (self.memory / "memory.max").write_text(str(memory))
            with contextlib.suppress(OSError):
                (self.memory / "memory.swap.max").write_text("0")
        else:
            limit = self.memory / "memory.limit_in_bytes"
            both = self.memory / "memory.memsw.limit_in_bytes"
            with contextlib.suppress(OSError):
                both.write_text("-1")  # it may not lie below the other, in either order of change
            limit.write_text(str(memory))
            with contextlib.suppress(OSError):
                both.write_text(str(memory))
        (self.pids / "pids.max").write_text(str(processes))
        self._held = memory, processes

    def add(self, pid: int) -> None:
        for folder in dict.fromkeys((self.memory, self.pids)):
            (folder / "cgroup.procs").write_text(str(pid))

    def holds(self, pid: int, memory: int) -> bool:
        """Whether the kernel says that a process is in it and held to so much."""
        name = "memory.max" if self.version == 2 else "memory.limit_in_bytes"
        limit = (self.memory / name).read_text().strip()
        pids = (self.memory / "cgroup.procs").read_text().split()
        return limit.isdigit() and int(limit) <= memory and str(pid) in pids

    def oom_kills(self) -> int:
        """How often the kernel ended a process here for its memory."""
        if self._events < 0:
            name = "memory.events" if self.version == 2 else "memory.oom_control"
            self._events = os.open(self.memory / name, os.O_RDONLY | os.O_CLOEXEC)
        _, found, count = os.pread(self._events, 1024, 0).partition(b"oom_kill ")
        return int(count.split(maxsplit=1)[0]) if found else 0

    def close(self) -> None:
        if self._events >= 0:
            os.close(self._events)
            self._events = -1


@dataclass(slots=True)
class Groups:
    """Hands out groups; `None` from `open` where there can be none."""

    memory: Path
    pids: Path
    version: int
    _free: list[Group] = field(default_factory=list)
    _all: list[Group] = field(default_factory=list)
    _made: int = 0

    @classmethod
    def open(cls) -> Groups | None:
        """Groups of this process, under those it is in itself; leftovers of dead ones are swept."""
        for memory, pids, version in _places():
            tops = [folder / f"{PREFIX}{os.getpid()}-{os.urandom(3).hex()}" for folder in dict.fromkeys((memory, pids))]
            try:
                _sweep(memory)
                _sweep(pids)
                for top in tops:
                    top.mkdir()
                if version == 2:
                    (tops[0] / "cgroup.subtree_control").write_text("+memory +pids")
                groups = cls(tops[0], tops[-1], version)
                trial = groups.take()
                trial.limit(1 << 24, 8)
                trial.oom_kills()
                groups.give(trial)
                return groups
            except OSError:
                for top in tops:
                    _remove(top)
        return None

    def take(self) -> Group:
        if self._free:
            return self._free.pop()
        self._made += 1
        group = Group(self.memory / str(self._made), self.pids / str(self._made), self.version)
        for folder in dict.fromkeys((group.memory, group.pids)):
            folder.mkdir()
        self._all.append(group)
        return group

    def give(self, group: Group) -> None:
        """Back, once its processes have ended."""
        self._free.append(group)

    def close(self) -> None:
        for group in self._all:
            group.close()
        for top in dict.fromkeys((self.memory, self.pids)):
            _remove(top)


def _places() -> Iterator[tuple[Path, Path, int]]:
    """(memory's folder, pids' folder, version) of the groups that this process is in."""
    try:
        lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return
    mine: Mapping[str, str] = {name: path for _, names, path in lines for name in names.split(",")}
    if {"memory", "pids"} <= set(mine):
        tops = [ROOT / name / mine[name].lstrip("/") for name in ("memory", "pids")]
        # inside a container the path may be the host's: the container's own tree then starts at the mount
        yield (*(top if top.is_dir() else ROOT / name for top, name in zip(tops, ("memory", "pids"), strict=True)), 1)  # type: ignore[misc]
    if "" in mine and (ROOT / "cgroup.controllers").exists():
        top = ROOT / mine[""].lstrip("/")
        yield top, top, 2
        yield ROOT, ROOT, 2


def _sweep(top: Path) -> None:
    """Remove the groups of processes that are gone."""
    for left in top.glob(f"{PREFIX}*"):
        pid = left.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            _remove(left)


def _remove(top: Path) -> None:
    for folder in [*top.glob("*/"), top]:
        with contextlib.suppress(OSError):
            folder.rmdir()
