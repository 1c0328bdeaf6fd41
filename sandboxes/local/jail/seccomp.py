"""The system-call filter of a session: an allowlist in classic BPF (man 2 seccomp), built once.

What is not on the list is answered EPERM; another architecture's calls kill. No sockets but local pairs, no
namespaces, no tracing, no keys, no kernel interfaces that were ever a way out.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Iterable, Sequence

from .syscalls import AUDIT_ARCH, MACHINE, TABLES, call, prctl

ALLOW, KILL = 0x7FFF0000, 0x80000000
ERRNO = 0x00050000
PR_SET_NO_NEW_PRIVS, MODE_FILTER = 38, 1

# names that differ from the allowed part of the tables (which hold set-up's own calls too)
DENIED = {
    "mount",
    "umount2",
    "pivot_root",
    "unshare",
    "socket",
    "seccomp",
    "capset",
    "mount_setattr",
    "mknod",
    "mknodat",
}
DENIED |= {"sethostname", "memfd_create"}  # files in memory that no disk limit counts
DENIED |= {"io_setup", "io_destroy", "io_submit", "io_cancel", "io_getevents", "setxattr"}
DENIED |= {"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"}
CONDITIONAL = {"clone", "clone3", "socketpair", "ioctl", "prctl", "personality"}
# for a session that runs as its host's own user, beside what else that user has:
FAKED = {"chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat"}
FAKED |= {"utime", "utimes", "futimesat", "utimensat"}  # answered as done: programs that copy files insist on them
OTHERS = {"setpriority", "inotify_add_watch"}
OF_ITSELF = {"prlimit64": 0, "sched_setaffinity": 0}
"""Calls that take a process, by the index of that argument: only with 0, the caller."""

NEW_NAMESPACES = 0x7E020000  # CLONE_NEW{USER,PID,NET,IPC,UTS,NS,CGROUP}
IOCTLS = (0x5401, 0x540F, 0x5410, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451, 0x5452)
"""TCGETS TIOCGPGRP TIOCSPGRP TIOCGWINSZ FIONREAD FIONBIO FIONCLEX FIOCLEX FIOASYNC; TIOCSTI is not one of them."""
PRCTLS = (1, 2, 3, 4, 15, 16, 21, 38, 39, 0x53564D41)
"""SET_ and GET_PDEATHSIG, GET_ and SET_DUMPABLE, SET_ and GET_NAME, GET_SECCOMP, SET_ and GET_NO_NEW_PRIVS, SET_VMA."""

_LD, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_NR, _ARCH = 0, 4
_Op = tuple[int, int, int, int]


def _arg(index: int) -> int:
    return 16 + 8 * index  # the low half; both architectures are little-endian


def _ret(value: int) -> _Op:
    return (_RET, 0, 0, value)


def _one_of(number: int, argument: int, values: Sequence[int]) -> list[_Op]:
    """If the call is `number`: allow when its argument is one of `values`, else EPERM."""
    body = [(_LD, 0, 0, _arg(argument))]
    for value in values:
        body += [(_JEQ, 0, 1, value), _ret(ALLOW)]
    body.append(_ret(ERRNO | errno.EPERM))
    return [(_JEQ, 0, len(body), number), *body]


def program(machine: str = MACHINE, own_user: bool = False) -> list[_Op]:
    """The filter's instructions; `own_user`: the session's user is that of its host."""
    table = TABLES[machine]
    ops: list[_Op] = [(_LD, 0, 0, _ARCH), (_JEQ, 1, 0, AUDIT_ARCH[machine]), _ret(KILL), (_LD, 0, 0, _NR)]
    if machine == "x86_64":
        ops += [(_JGE, 0, 1, 0x40000000), _ret(KILL)]  # the x32 interface
    # libc takes ENOSYS as "use clone", whose flags can be looked at
    ops += [(_JEQ, 0, 1, table["clone3"]), _ret(ERRNO | errno.ENOSYS)]
    ops += [
        (_JEQ, 0, 4, table["clone"]),
        (_LD, 0, 0, _arg(0)),
        (_JSET, 0, 1, NEW_NAMESPACES),
        _ret(ERRNO | errno.EPERM),
        _ret(ALLOW),
    ]
    ops += _one_of(table["socketpair"], 0, (socket.AF_UNIX,))
    ops += _one_of(table["ioctl"], 1, IOCTLS)
    ops += _one_of(table["prctl"], 0, PRCTLS)
    ops += _one_of(table["personality"], 0, (0xFFFFFFFF, 0))
    passed_over = DENIED | CONDITIONAL
    if own_user:
        passed_over |= FAKED | OTHERS | set(OF_ITSELF)
        for name, argument in OF_ITSELF.items():
            ops += _one_of(table[name], argument, (0,))
        for number in (table[name] for name in sorted(FAKED & set(table))):
            ops += [(_JEQ, 0, 1, number), _ret(ERRNO)]
    return ops + _search(_ranges(number for name, number in table.items() if name not in passed_over))


def _ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """(first, last) of each run of consecutive numbers."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def _search(ranges: Sequence[tuple[int, int]]) -> list[_Op]:
    """Allow the numbers of `ranges`, found by halves: the kernel tries all calls on a filter that it is given."""
    if len(ranges) == 1:
        low, high = ranges[0]
        return [(_JGE, 0, 2, low), (_JGE, 1, 0, high + 1), _ret(ALLOW), _ret(ERRNO | errno.EPERM)]
    middle = len(ranges) // 2
    below, above = _search(ranges[:middle]), _search(ranges[middle:])
    return [(_JGE, len(below), 0, ranges[middle][0]), *below, *above]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("ops", ctypes.c_void_p))


def prepare(own_user: bool = False) -> _Program:
    """The filter in the kernel's shape; keeps what it points to alive."""
    code = b"".join(struct.pack("=HBBI", *op) for op in program(own_user=own_user))
    buffer = ctypes.create_string_buffer(code, len(code))
    made = _Program(len(code) // 8, ctypes.addressof(buffer))
    made.buffer = buffer
    return made


def install(prepared: _Program) -> None:
    """Put the calling process, and all it will start, under the filter for good."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    call("seccomp", MODE_FILTER, 0, ctypes.addressof(prepared))
