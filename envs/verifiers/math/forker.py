"""The host's end of a zygote: starts it, asks it for workers, hears which were born and which ended."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 60.0
HERE = Path(__file__).resolve().parent
_PACKAGES = "agentgym", "agentgym.envs", "agentgym.envs.verifiers", "agentgym.envs.verifiers.math"
_FOLDERS = HERE.parents[2] / "agentgym", HERE.parents[1], HERE.parent, HERE
# the packages without their __init__: a zygote needs neither gymnasium nor the names they hand on
_START = """
import sys, types
for name, folder in zip(sys.argv[1].split(), sys.argv[2:6]):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [folder]
from agentgym.envs.verifiers.math.zygote import main
main(int(sys.argv[6]), int(sys.argv[7]))
"""


@dataclass(frozen=True, slots=True)
class Born:
    pid: int
    socket: socket.socket


@dataclass(frozen=True, slots=True)
class Ended:
    pid: int
    signal: int


class Forker:
    """A zygote that runs from now on; its first worker is due by `start_by`, on the monotonic clock."""

    def __init__(self) -> None:
        self.control, theirs = socket.socketpair()
        self.asked = 0
        """Forks that were asked for and have not come."""
        self._told = b""
        folders = [str(folder) for folder in _FOLDERS]
        arguments = [" ".join(_PACKAGES), *folders, str(theirs.fileno()), str(os.getpid())]
        command = [sys.executable, "-P", "-W", "ignore", "-c", _START, *arguments]
        with theirs:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
            )
        self.start_by = time.monotonic() + START_SECONDS

    @property
    def pid(self) -> int:
        return self._process.pid

    def fork(self, count: int) -> None:
        with contextlib.suppress(OSError):
            self.control.sendall(b'{"fork": 1}\n' * count)
            self.asked += count

    def kill(self, pid: int) -> None:
        with contextlib.suppress(OSError):
            self.control.sendall(json.dumps({"kill": pid}).encode() + b"\n")

    def hear(self) -> list[Born | Ended] | None:
        """What happened, in order; None where the zygote is gone."""
        try:
            received, fds, _, _ = socket.recv_fds(self.control, 65536, 64)
        except OSError:
            received, fds = b"", []
        if not received:
            return None
        *lines, self._told = (self._told + received).split(b"\n")
        events: list[Born | Ended] = []
        for line in lines:
            told = json.loads(line)
            if "pid" in told:
                self.asked -= 1
                events.append(Born(told["pid"], socket.socket(fileno=fds.pop(0))))
            else:
                events.append(Ended(told["ended"], told["signal"]))
        return events

    def close(self) -> None:
        """End the zygote; its workers follow it."""
        self.control.close()
        self._process.kill()
        self._process.wait()

    def forget(self) -> None:
        """In a forked child: let go of it, and leave it alone."""
        self.control.close()
        self._process.returncode = 0  # not a child of this process: nothing to wait for
