"""A session's init where there is no pid namespace: it adopts what its session orphans, and ends all of it.

It is told to end by SIGTERM, from the host or, by its death, from the zygote; it holds the signal back until it asks.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence

from .syscalls import prctl

PR_SET_CHILD_SUBREAPER = 36
_TOLD = {signal.SIGTERM, signal.SIGCHLD}


def adopt() -> None:
    """From now on, orphans below this process become its children."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def hold_back() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, _TOLD)


def let_through() -> None:
    """In a child of the keeper's, which is to have signals as any process."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _TOLD)


def keep(worker: int, folder: str, finish: Callable[[], None]) -> int:
    """Wait until the worker ends or one is told to; then end everything below, and remove the session's folder."""
    code = 70
    over = False
    while not over:
        over = signal.sigwait(_TOLD) == signal.SIGTERM
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if ended.si_pid == worker:  # it is not buried yet: what bears its number is still its own
                code, over = ended.si_status + (0 if ended.si_code == os.CLD_EXITED else 128), True
                break
            os.waitpid(ended.si_pid, 0)
    end_below(finish)
    remove(folder)
    return code


def reaped() -> list[int]:
    found = []
    with contextlib.suppress(ChildProcessError):
        while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
            found.append(pid)
    return found


def end_below(finish: Callable[[], None]) -> None:
    """Kill all descendants of the caller; `finish` ends at once what it can.

    It comes first: among hundreds of processes that fork, the caller's share of the machine is too small to count them.
    """
    finish()
    while descendants(os.getpid()):
        strike(lambda: descendants(os.getpid()))
        finish()
        reaped()
    finish()


def strike(found: Callable[[], Sequence[int]]) -> None:
    """Kill what is found. First all of it is stopped: as long as it stands still but is there, nothing takes its place.

    Killed one by one, a fork bomb refills what it loses faster than one can count it.
    """
    stopped: set[int] = set()
    while new := set(found()) - stopped:
        _send(signal.SIGSTOP, new)
        stopped |= new
    _send(signal.SIGKILL, stopped)
    time.sleep(0.0005)  # they take a moment


def _send(number: signal.Signals, pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def descendants(top: int) -> list[int]:
    found: list[int] = []
    pending = [top]
    while pending:
        below = children(pending.pop())
        found += below
        pending += below
    return found


def children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                found += map(int, file.read().split())
    return found


def remove(folder: str) -> None:
    """A folder and all below it, whatever modes are set there and however deep it is.

    Nothing above it is touched, nor what links lead to. Folders inside are first moved up, so that paths stay short.
    """
    pending, count, mark = [folder], 0, os.urandom(6).hex()
    while pending:
        here = pending.pop()
        with contextlib.suppress(OSError):
            os.chmod(here, 0o700)
            with os.scandir(here) as found:
                entries = list(found)
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                    continue
                count += 1
                pending.append(f"{folder}/{mark}-{count}")
                os.chmod(entry.path, 0o700)  # else it could not be moved
                os.rename(entry.path, pending[-1])
            if here != folder:
                os.rmdir(here)
    with contextlib.suppress(OSError):
        os.rmdir(folder)
