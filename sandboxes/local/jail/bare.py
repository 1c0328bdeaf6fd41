"""No walls at all: a process with limits in a folder of its own. Whatever its user may do, its code may do."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from . import keeper, landlock, namespaces


class Bare:
    """See `tiers.Tier`."""

    flags = 0

    def __init__(self, packages: Sequence[str]):
        self.packages = packages

    def build(self) -> None:
        keeper.adopt()

    def enter(self, limits: Mapping[str, Any]) -> None:
        keeper.adopt()
        keeper.hold_back()
        landlock.furnish(limits["folder"], -1)

    def seal_init(self) -> None: ...

    def seal_worker(self, limits: Mapping[str, Any]) -> None:
        keeper.let_through()
        os.setpgid(0, 0)  # a group that its init is not in
        landlock.settle(limits["folder"])
        # the limit counts its user's other processes too
        count = limits["processes"] + landlock.tasks_of(os.geteuid()) + landlock.ROOM
        namespaces.set_limits({**limits, "processes": count})

    def end_others(self) -> None:
        for pid in keeper.descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def wait(self, worker: int, limits: Mapping[str, Any]) -> int:
        return keeper.keep(worker, limits["folder"], lambda: _end_group(worker))


def _end_group(worker: int) -> None:
    """What has not left the worker's process group, at once."""
    with contextlib.suppress(ChildProcessError, ProcessLookupError, PermissionError):
        os.waitid(os.P_PID, worker, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # fails once its number may be another's
        os.killpg(worker, signal.SIGKILL)
