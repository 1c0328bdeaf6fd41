"""One session, seen from the host: frames to its worker, its output, its end."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import tempfile
from dataclasses import replace
from typing import Any

from agentgym.errors import SandboxFault
from agentgym.execution import ExecResult, ExecStatus, SandboxLimits
from agentgym.sandboxes.local.cgroups import Group, Groups
from agentgym.sandboxes.local.jail import keeper
from agentgym.sandboxes.local.jail.wire import HEADER, Garbled, pack, parse, sizes
from agentgym.sandboxes.local.waiting import readable
from agentgym.sandboxes.local.watchdog import Watch, Watchdog, occupied
from agentgym.sandboxes.local.zygote import Zygote
from agentgym.sandboxes.sessions import outcome

END_SECONDS = 10.0
FOLDERS = 64 << 10
"""Bytes on the disk that are not counted, for the folders of files."""
_BEYOND = {
    "memory": (ExecStatus.oom, "the session's processes held more memory than it was given"),
    "processes": (ExecStatus.killed, "the session had more processes than it was given"),
    "disk": (ExecStatus.killed, "No space left: the session wrote more than it was given"),
}
WATCHDOG = Watchdog()
_UNWATCHED = contextlib.nullcontext()


class Ended(Exception):
    """The session's stream closed, or brought no frame."""


class Session:
    """The processes of one jail. Lives until `end`; whoever holds it may rely on nothing that comes out of it."""

    def __init__(self, zygote: Zygote, groups: Groups | None, limits: SandboxLimits):
        self.limits = limits
        self._zygote = zygote
        self._groups = groups
        self._group: Group | None = None
        self._disk = limits.disk + FOLDERS
        self._folder = _folder() if zygote.tier != "namespaces" else ""
        self._oom_before = 0
        self._pid, self._pidfd = 0, -1
        self._parent: object = None
        self._stream: socket.socket | None = None
        self._buffer = bytearray()
        self._out = [os.memfd_create(name, os.MFD_CLOEXEC) for name in ("stdout", "stderr")]
        for fd in self._out:  # writers append, also those that outlive a call
            _set_append(fd)

    @property
    def orphaned(self) -> bool:
        """Whether the zygote that forked it has ended, and it with it, though another may be there by now."""
        return self._parent is not self._zygote.process or not self._zygote.alive

    @property
    def counted(self) -> bool:
        """Whether a control group holds its memory and processes."""
        return self._group is not None and self._group.holds(self._pid, self.limits.memory)

    async def start(self) -> None:
        """Fork and build it; raises `SandboxFault`."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._stream = ours
        try:
            with theirs:
                numbers = {
                    **_numbers(self.limits, by_process=self._groups is None),
                    "folder": self._folder,
                }
                self._pid, self._pidfd = await self._zygote.fork(numbers, [theirs.fileno(), *self._out])
                self._parent = self._zygote.process
            if self._groups is not None:
                self._group = self._groups.take()
                self._group.limit(self.limits.memory, self.limits.processes + 2)  # its init and worker
                self._group.add(self._pid)
                self._oom_before = self._group.oom_kills()
            await asyncio.get_running_loop().sock_sendall(ours, b"!")
            async with asyncio.timeout(END_SECONDS):
                message, _ = await self._receive()
        except (OSError, Ended, Garbled) as e:
            await self.end()
            raise SandboxFault(f"a session could not be built: {e or type(e).__name__}") from e
        except BaseException:
            await self.end()
            raise
        if "ready" not in message:
            await self.end()
            raise SandboxFault(f"a session could not be built: {message.get('failed')}")

    async def call(self, op: str, payload: bytes, timeout: float, **more: Any) -> tuple[ExecResult, bytes]:
        """One request and its outcome; whatever keeps the stream from being in step ends the session."""
        assert self._stream is not None
        watch: Watch | None = None
        try:
            async with asyncio.timeout(timeout):
                with self._watched() as watch:
                    await asyncio.get_running_loop().sock_sendall(self._stream, pack({"op": op, **more}, payload))
                    message, data = await self._receive()
        except TimeoutError:
            return await self._over(ExecStatus.timeout, f"timed out after {timeout:g} s"), b""
        except (OSError, Ended, Garbled) as e:
            over = await self._over(*self._why(watch, str(e)))
            # sessions die of their zygote's death, which is seen for sure only once they are buried
            return (replace(over, status=ExecStatus.infra_error) if self.orphaned else over), b""
        except BaseException:
            await self.end()
            raise
        if self._folder and occupied(self._folder, self._disk) > self._disk:
            return await self._over(*_BEYOND["disk"]), b""
        return self._result(message), data

    def _result(self, message: dict[str, Any]) -> ExecResult:
        oom = self._group is not None and (kills := self._group.oom_kills()) > self._oom_before
        if oom:
            self._oom_before = kills
        return outcome(message, oom, self._outputs(), self.limits)

    def _outputs(self) -> list[tuple[bytes, int]]:
        # from the file, whose size may be a lie of holes: no more is read than is shown
        sizes = [os.fstat(fd).st_size for fd in self._out]
        most = self.limits.output + 1
        return [(os.pread(fd, min(n, most), 0) if n else b"", n) for fd, n in zip(self._out, sizes, strict=True)]

    def _watched(self) -> contextlib.AbstractContextManager[Watch | None]:
        if self._group is not None and not self._folder:
            return _UNWATCHED
        watch = Watch(self._pid, self._pidfd, self._zygote.parting, folder=self._folder, disk=self._disk)
        if self._group is None:
            watch.memory = self.limits.memory
            watch.processes = self.limits.processes + 2 if self._folder else 0
        return WATCHDOG.over(watch)

    def _why(self, watch: Watch | None, error: str) -> tuple[ExecStatus, str]:
        if watch is not None and watch.fired:
            return _BEYOND[watch.fired]
        if not self._zygote.alive:
            return ExecStatus.infra_error, error
        if self._group is not None and self._group.oom_kills() > self._oom_before:
            return ExecStatus.oom, error
        return ExecStatus.killed, error

    async def _over(self, status: ExecStatus, error: str) -> ExecResult:
        told = outcome({}, False, self._outputs(), self.limits)
        await self.end()
        return replace(told, status=status, error=error, state_lost=True)

    async def end(self) -> None:
        """Kill everything in it and wait until it is gone. Safe to call again, and under cancellation."""
        pidfd, self._pidfd = self._pidfd, -1
        stream, self._stream = self._stream, None
        out, self._out = self._out, []
        if stream is not None:
            stream.close()
        for fd in out:
            os.close(fd)
        if pidfd >= 0:
            await asyncio.shield(self._buried(pidfd))
        folder, self._folder = self._folder, ""
        if folder:
            keeper.remove(folder)

    async def _buried(self, pidfd: int) -> None:
        try:
            for last in (self._zygote.parting, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, last)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(END_SECONDS):
                        await readable(pidfd)
                    break
            else:
                raise TimeoutError
            if self._group is not None and self._groups is not None:
                self._groups.give(self._group)
        except TimeoutError:
            pass  # its group stays taken: nobody else is to be counted together with it
        finally:
            os.close(pidfd)

    async def _receive(self) -> tuple[dict[str, Any], bytes]:
        await self._fill(HEADER.size)
        text, payload = sizes(bytes(self._buffer[: HEADER.size]))
        await self._fill(HEADER.size + text + payload)
        body = bytes(self._buffer[HEADER.size : HEADER.size + text + payload])
        del self._buffer[: HEADER.size + text + payload]
        return parse(body[:text]), body[text:]

    async def _fill(self, size: int) -> None:
        assert self._stream is not None
        loop = asyncio.get_running_loop()
        while len(self._buffer) < size:
            part = await loop.sock_recv(self._stream, 1 << 16)
            if not part:
                raise Ended("the session's process ended")
            self._buffer += part


def _numbers(limits: SandboxLimits, by_process: bool) -> dict[str, int]:
    return {
        "files": limits.open_files,
        "processes": limits.processes + 2,
        "cpu": max(1, int(limits.cpu_seconds)),
        "disk": limits.disk,
        "inodes": max(256, limits.disk >> 12),
        # without a control group each process is held by itself and all of them by the watchdog
        "address_space": limits.memory + (64 << 20) if by_process else 0,
    }


def _folder() -> str:
    """One of the session's own, where no mounts hide the machine's."""
    return tempfile.mkdtemp(prefix="agentgym-box-")


def _set_append(fd: int) -> None:
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)
