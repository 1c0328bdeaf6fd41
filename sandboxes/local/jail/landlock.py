"""Walls without namespaces: Landlock rules on files and signals, the system-call filter, a user per session for root.

For where namespaces are refused, as in a default Docker container. What differs from them:

- as root each session runs as a user of its own whom nothing else belongs to; otherwise as the caller's user, and then
  changes of mode, owner and times are answered as done and are not (Landlock does not know them).
- names, sizes and times of files outside can be asked for, though no file be opened; other processes can be seen to be
  there, but neither read nor signalled. `/proc` and `/dev/shm` are closed.
- for an ordinary user the kernel counts the processes of all that the user runs, so only a generous limit is its; the
  watchdog holds the session to its own.
"""

from __future__ import annotations

import ctypes
import os
import random
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from . import keeper, namespaces, seccomp
from .syscalls import call, prctl

EXECUTE, WRITE, READ, READ_DIR = 1, 2, 4, 8
REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG, MAKE_FIFO, MAKE_SYM = 16, 32, 128, 256, 1024, 4096
REFER, TRUNCATE, IOCTL_DEV = 8192, 16384, 32768
READING = EXECUTE | READ | READ_DIR
WRITING = READING | WRITE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_FIFO | MAKE_SYM | REFER | TRUNCATE
OF_FILES = EXECUTE | WRITE | READ | TRUNCATE | IOCTL_DEV
NET, SIGNALS = 3, 2
SCOPES = 1 | SIGNALS
"""BIND_TCP and CONNECT_TCP; ABSTRACT_UNIX_SOCKET and SIGNAL."""
ABI_OF_SCOPES = 6
VERSION_FLAG, RULE_PATH_BENEATH = 1, 1
PR_SET_KEEPCAPS, PR_CAP_AMBIENT, AMBIENT_RAISE = 8, 47, 2
CAP_DAC_READ_SEARCH = 2
ROOM = 256
"""Processes by which a user's others may grow meanwhile; how many a session has is the watchdog's to see, exactly."""
_HIGH = (0x70000000, 0x7FF00000)
_LOW = (64000, 65000)


def abi() -> int:
    """The version of Landlock that this kernel has; raises `OSError` where there is none."""
    return call("landlock_create_ruleset", None, 0, VERSION_FLAG)


def _handled(version: int) -> int:
    bits = (1 << 13) - 1
    for since, bit in ((2, REFER), (3, TRUNCATE), (5, IOCTL_DEV)):
        bits |= bit if version >= since else 0
    return bits


def ruleset(version: int, readable: Sequence[str], devices: Sequence[str], folder: str) -> int:
    """A descriptor of rules: nothing but reading `readable`, using `devices` and all in `folder`."""
    handled = _handled(version)
    fields = [handled, *([NET] if version >= 4 else []), *([SCOPES] if version >= ABI_OF_SCOPES else [])]
    rules = _empty(fields)
    granted = [(path, READING) for path in readable] + [(path, READ | WRITE) for path in devices] + [(folder, WRITING)]
    for path, rights in granted:
        with suppress(FileNotFoundError):
            at = os.open(path, os.O_PATH | os.O_CLOEXEC)
            rights &= handled if os.path.isdir(path) else handled & OF_FILES
            rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, at))
            call("landlock_add_rule", rules, RULE_PATH_BENEATH, ctypes.addressof(rule), 0)
            os.close(at)
    return rules


def _empty(handled: Sequence[int]) -> int:
    """A descriptor of rules that allow nothing of what is `handled`: the fields of `struct landlock_ruleset_attr`."""
    attributes = ctypes.create_string_buffer(struct.pack(f"={len(handled)}Q", *handled))
    return call("landlock_create_ruleset", ctypes.addressof(attributes), 8 * len(handled), 0)


def fence() -> None:
    """From now on the caller signals nobody but what it starts; raises `OSError` where that does not hold."""
    rules = _empty([0, 0, SIGNALS])
    prctl(seccomp.PR_SET_NO_NEW_PRIVS, 1)
    call("landlock_restrict_self", rules, 0)
    os.close(rules)
    with suppress(PermissionError):
        os.kill(os.getppid(), 0)
        raise OSError(95, "Landlock does not keep a session's init from signalling the user's other processes")


class Landlock:
    """See `tiers.Tier`."""

    flags = 0

    def __init__(self, binds: Sequence[str], packages: Sequence[str]):
        self.packages = packages
        binds = [*binds, *packages]
        self._readable = [path for path in namespaces.sources(binds) if not path.startswith(("/dev/", "/proc"))]
        self._devices = [path for path in namespaces.sources(binds) if path.startswith("/dev/")]
        self._version = 0
        self._uid = 0
        self._reads_all = False
        self._fenced = False

    def build(self) -> None:
        try:
            self._version = abi()
        except OSError as e:
            raise OSError(e.errno, f"the kernel has no Landlock ({e.strerror})") from None
        self._root = os.geteuid() == 0
        if not self._root and self._version < ABI_OF_SCOPES:
            raise OSError(
                95,
                f"Landlock is of version {self._version} here, and cannot keep a session from signalling the "
                f"user's other processes; that takes version {ABI_OF_SCOPES} (Linux 6.12), or root",
            )
        hidden = [path for path in self._readable if not all(map(_open_to_all, _above(path)))]
        self._reads_all = self._root and bool(hidden)
        if self._reads_all and not _holds(CAP_DAC_READ_SEARCH):
            raise PermissionError(1, f"a session's own user cannot reach {hidden[0]}: open the folders above it to all")
        self._filter = seccomp.prepare(own_user=not self._root)
        keeper.adopt()

    def enter(self, limits: Mapping[str, Any]) -> None:
        keeper.adopt()
        keeper.hold_back()
        self._uid = _some_user() if self._root else os.geteuid()
        furnish(limits["folder"], self._uid if self._root else -1)
        if not self._root:
            fence()
            self._fenced = True

    def seal_init(self) -> None: ...

    def seal_worker(self, limits: Mapping[str, Any]) -> None:
        keeper.let_through()
        settle(limits["folder"])
        rules = ruleset(self._version, self._readable, self._devices, limits["folder"])
        if self._root:
            self._become()
        else:
            limits = {**limits, "processes": limits["processes"] + tasks_of(self._uid) + ROOM}
        namespaces.set_limits(limits)
        prctl(seccomp.PR_SET_NO_NEW_PRIVS, 1)
        call("landlock_restrict_self", rules, 0)
        os.close(rules)
        if not self._root:
            namespaces.drop_rights()
        seccomp.install(self._filter)

    def _become(self) -> None:
        """The session's own user, who may read at most what Landlock lets him."""
        kept = [CAP_DAC_READ_SEARCH] if self._reads_all else []
        prctl(PR_SET_KEEPCAPS, 1)
        namespaces.drop_bounds(kept)
        os.setgroups([])
        os.setresgid(self._uid, self._uid, self._uid)
        os.setresuid(self._uid, self._uid, self._uid)
        namespaces.keep_rights(kept)
        for capability in kept:
            call("prctl", PR_CAP_AMBIENT, AMBIENT_RAISE, capability, 0, 0)

    def end_others(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(-1, 9)  # reaches no further than Landlock or the session's own user

    def wait(self, worker: int, limits: Mapping[str, Any]) -> int:
        return keeper.keep(worker, limits["folder"], self._finish)

    def _finish(self) -> None:
        """All that the session runs, at once: nothing of it can fork away."""
        if self._fenced:
            with suppress(ProcessLookupError):
                os.kill(-1, 9)
        if not self._root:
            return
        pid = os.fork()
        if pid == 0:
            try:
                os.setresuid(self._uid, self._uid, self._uid)
                os.kill(-1, 9)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)


def furnish(folder: str, owner: int) -> None:
    """The session's two folders, which belong to `owner` (-1: to whom they do)."""
    for name in ("work", "tmp"):
        os.mkdir(f"{folder}/{name}", 0o700)  # where the host has removed the folder already, this fails
        os.chown(f"{folder}/{name}", owner, owner)
    os.chown(folder, owner, owner)


def settle(folder: str) -> None:
    """In the worker: where it works, and where its variables say so."""
    prctl(namespaces.PR_SET_DUMPABLE, 1)  # it was taken from the init, and with it what /proc/self may be asked
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")  # before its init, which is to bury it
    os.chdir(f"{folder}/work")
    os.environ.update(HOME=f"{folder}/work", TMPDIR=f"{folder}/tmp", AGENTGYM_FOLDER=folder)


def _some_user() -> int:
    """A number that no process has; few are mapped in a user namespace."""
    with open("/proc/self/uid_map") as file:
        top = max(int(line.split()[0]) + int(line.split()[2]) for line in file)
    while True:
        uid = random.SystemRandom().randrange(*(_HIGH if top > _HIGH[1] else _LOW))
        if not tasks_of(uid):
            return uid


def tasks_of(uid: int) -> int:
    """Threads of a user, which is what the limit on processes counts."""
    total = 0
    for name in os.listdir("/proc"):
        with suppress(OSError, ValueError):
            if os.stat(f"/proc/{int(name)}").st_uid == uid:
                total += len(os.listdir(f"/proc/{name}/task"))
    return total


def _above(path: str) -> Iterator[str]:
    path = os.path.realpath(path)
    while (path := os.path.dirname(path)) != "/":
        yield path


def _open_to_all(folder: str) -> bool:
    return bool(os.stat(folder).st_mode & 1)


def _holds(capability: int) -> bool:
    with open("/proc/self/status") as file:
        held = next(line.split()[1] for line in file if line.startswith("CapPrm:"))
    return bool(int(held, 16) >> capability & 1)
