"""The walls: namespaces, a read-only root of what an interpreter needs, a small writable disk, no capabilities."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from . import seccomp
from .syscalls import call, prctl

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
AT_RECURSIVE, AT_EMPTY_PATH = 0x8000, 0x1000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP = 1, 4, 24
NOBODY = 65534
WORK = "/work"

_STAGE = "/tmp"
_DEVICES = ("null", "zero", "full", "random", "urandom")
_ETC = ("ld.so.cache", "localtime", "alternatives", "mime.types")
_ACCOUNTS = {"passwd": f"agent:x:{NOBODY}:{NOBODY}::{WORK}:/bin/sh\n", "group": f"agent:x:{NOBODY}:\n", "hosts": ""}


class Namespaces:
    """See `tiers.Tier`."""

    flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP

    def __init__(self, binds: Sequence[str], packages: Sequence[str]):
        self._binds = binds
        self._moved = {path: f"/packages/{i}" for i, path in enumerate(packages)}
        self.packages: Sequence[str] = list(self._moved.values())

    def build(self) -> None:
        build_root(self._binds, self._moved)
        self._filter = seccomp.prepare()

    def enter(self, limits: Mapping[str, Any]) -> None:
        enter_session(os.getuid(), os.getgid(), limits)
        set_limits(limits)
        drop_rights()

    def seal_init(self) -> None:
        seccomp.install(self._filter)

    def seal_worker(self, limits: Mapping[str, Any]) -> None: ...

    def end_others(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)  # of its pid namespace

    def wait(self, worker: int, limits: Mapping[str, Any]) -> int:
        """Reap whatever ends here; when the worker does, so does the session."""
        while True:
            pid, status = os.wait()
            if pid == worker:
                return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    call("mount", source.encode(), target.encode(), kind.encode() if kind else None, flags, data.encode() or None)


def build_root(binds: Sequence[str], moved: Mapping[str, str]) -> bool:
    """Leave the machine's file system for a read-only one of `binds`, the system's programs and a few devices.

    `moved`: folders that are found under another path there, as a session's own disk may lie over theirs.
    As root the walls are built with root's rights, which are then given up for `nobody`'s; as an ordinary user inside
    a user namespace of one's own. Returns whether it was the former.
    """
    privileged = _leave()
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    # opened before the stage covers anything, in this mount namespace, so that any path may be bound
    opened = {path: os.open(path, os.O_PATH) for path in [*sources(binds), *moved]}
    mount("none", _STAGE, "tmpfs", MS_NOSUID, "size=1m,mode=0755")
    for name in ("proc", "dev", "dev/shm", "etc", "tmp", WORK[1:], "run"):
        os.makedirs(f"{_STAGE}/{name}", 0o755)
    for path, fd in opened.items():
        if os.path.islink(path):
            os.symlink(os.readlink(path), _STAGE + path)
        elif path != "/proc":
            _bind(
                fd,
                _STAGE + moved.get(path, path),
                os.path.isdir(f"/proc/self/fd/{fd}"),
                devices=path.startswith("/dev/"),
            )
    for name, text in _ACCOUNTS.items():
        with open(f"{_STAGE}/etc/{name}", "w") as file:
            file.write(text)
    for name, target in {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}.items():
        os.symlink(f"/proc/self/fd{target}", f"{_STAGE}/dev/{name}")
    mount(f"/proc/self/fd/{opened['/proc']}", f"{_STAGE}/proc", None, MS_BIND | MS_REC)
    for fd in opened.values():
        os.close(fd)
    os.chdir(_STAGE)
    call("pivot_root", b".", b".")
    call("umount2", b".", MNT_DETACH)
    os.chdir("/")
    mount("none", "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID)
    if privileged:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        prctl(PR_SET_DUMPABLE, 1)  # else a child could not write its own uid_map
    return privileged


def _leave() -> bool:
    shared = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
    if os.geteuid() == 0:
        with suppress(PermissionError):
            call("unshare", shared)
            return True
    uid, gid = os.geteuid(), os.getegid()
    call("unshare", shared | CLONE_NEWUSER)
    map_ids(uid, gid, uid, gid)
    return False


def map_ids(inside_uid: int, inside_gid: int, uid: int, gid: int) -> None:
    for name, line in (
        ("setgroups", "deny"),
        ("uid_map", f"{inside_uid} {uid} 1"),
        ("gid_map", f"{inside_gid} {gid} 1"),
    ):
        fd = os.open(f"/proc/self/{name}", os.O_WRONLY)
        os.write(fd, line.encode())
        os.close(fd)


def sources(binds: Sequence[str]) -> list[str]:
    wanted = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32", "/proc"]
    wanted += [f"/etc/{name}" for name in _ETC] + [f"/dev/{name}" for name in _DEVICES]
    wanted += [path for path in binds if not any(_within(path, top) for top in ("/usr", "/bin", "/lib", "/lib64"))]
    return [path for path in dict.fromkeys(wanted) if os.path.lexists(path)]


def _within(path: str, top: str) -> bool:
    return os.path.commonpath([path, top]) == top


def _bind(fd: int, target: str, is_folder: bool, devices: bool) -> None:
    if is_folder:
        os.makedirs(target, 0o755, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    mount(f"/proc/self/fd/{fd}", target, None, MS_BIND | MS_REC)
    if devices:
        return
    # struct mount_attr: attr_set, attr_clr, propagation, userns_fd
    attributes = ctypes.create_string_buffer(struct.pack("=4Q", MS_RDONLY | MS_NOSUID | MS_NODEV, 0, 0, 0))
    at = os.open(target, os.O_PATH)
    try:
        flags = AT_EMPTY_PATH | AT_RECURSIVE
        call("mount_setattr", at, b"", flags, ctypes.addressof(attributes), ctypes.sizeof(attributes) - 1)
    finally:
        os.close(at)


def enter_session(uid: int, gid: int, limits: Mapping[str, Any]) -> None:
    """Inside fresh user, mount, pid, ipc, uts and cgroup namespaces: a disk and a /proc of one's own."""
    map_ids(NOBODY, NOBODY, uid, gid)
    disk = f"size={limits['disk']},nr_inodes={limits['inodes']},mode=0755"
    mount("none", "/run", "tmpfs", MS_NOSUID | MS_NODEV, disk)
    for name, target in {"work": WORK, "tmp": "/tmp", "shm": "/dev/shm"}.items():
        os.mkdir(f"/run/{name}", 0o700 if name == "work" else 0o1777)
        mount(f"/run/{name}", target, None, MS_BIND)
    mount("none", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    os.chdir(WORK)
    call("sethostname", b"sandbox", 7)


def drop_rights() -> None:
    """No capability in any set, nor a way back to one."""
    drop_bounds()
    keep_rights()


def drop_bounds(kept: Sequence[int] = ()) -> None:
    """No program that is started later gets a capability but `kept`."""
    for capability in range(64):
        try:
            if capability not in kept:
                prctl(PR_CAPBSET_DROP, capability)
        except OSError:
            break  # past the last one that this kernel knows, or not ours to drop


def keep_rights(kept: Sequence[int] = ()) -> None:
    """Give up all capabilities but `kept`."""
    sets = _capabilities(kept) if kept else _NONE
    call("capset", ctypes.addressof(_CALLER), ctypes.addressof(sets))


def _capabilities(kept: Sequence[int]) -> ctypes.Array[ctypes.c_char]:
    bits = sum(1 << capability for capability in kept)
    return ctypes.create_string_buffer(struct.pack("=6I", bits, bits, bits, 0, 0, 0))


_CALLER = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0))  # _LINUX_CAPABILITY_VERSION_3, this thread
_NONE = _capabilities(())  # made before there are sessions: each of them needs it


def set_limits(limits: Mapping[str, Any]) -> None:
    for name, value in _rlimits(limits):
        with suppress(ValueError, OSError):  # lower than asked already, and not ours to raise
            hard = resource.getrlimit(name)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(name, (value, value))


def _rlimits(limits: Mapping[str, Any]) -> Iterable[tuple[int, int]]:
    yield resource.RLIMIT_CORE, 0
    yield resource.RLIMIT_NOFILE, limits["files"]
    yield resource.RLIMIT_NPROC, limits["processes"]
    yield resource.RLIMIT_CPU, limits["cpu"]
    yield resource.RLIMIT_FSIZE, limits["disk"]
    yield resource.RLIMIT_MEMLOCK, 1 << 16
    yield resource.RLIMIT_MSGQUEUE, 0
    if limits["address_space"]:
        yield resource.RLIMIT_AS, limits["address_space"]
