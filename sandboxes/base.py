"""What sandboxes of every backend have in common: one base, so that a backend says only how it runs things."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, Self, TypeVar

from agentgym.errors import SandboxFault, SandboxFileError
from agentgym.execution import ExecResult, ExecStatus, SandboxSpec

T = TypeVar("T")
MAX_CODE = 1 << 20
MAX_FILE = 256 << 20
SNAPSHOT = "/tmp/.snapshot.tar"
# in an interpreter of its own, so that the session's variables stay as they are
_TAKE = "import sys, tarfile; t = tarfile.open(sys.argv[1], 'w'); t.add('.'); t.close()"
_PUT = (
    "import os, shutil, sys, tarfile\n"
    "for e in os.scandir('.'):\n"
    "    shutil.rmtree(e.path) if e.is_dir(follow_symlinks=False) else os.unlink(e.path)\n"
    # Python before 3.11.4 has no filters; what such an archive could reach is the session's own all the same
    "safely = {'filter': 'tar'} if hasattr(tarfile, 'tar_filter') else {}\n"
    "tarfile.open(sys.argv[1]).extractall('.', **safely)\n"
    "os.unlink(sys.argv[1])"
)


class BaseSandbox(ABC):
    """Checks what it is given and hands it on; calls of one sandbox run one after the other.

    A backend implements the methods that begin with an underscore. `_exec`, `_shell` and `_terminal` return a result
    whatever the code does, and raise `SandboxFault` only where the sandbox itself failed.
    """

    scratch = SNAPSHOT
    """SNAPSHOT, as its shell finds it."""

    def __init__(self, spec: SandboxSpec):
        self.spec = spec
        self._closed = False
        self._turn = asyncio.Lock()

    async def live(self) -> Any:
        """What it runs code in, begun where there is none; itself, unless a backend tells the two apart."""
        return self

    async def opened(self) -> Self:
        """Itself, with its session running; closed where there could be none."""
        try:
            await self.live()
        except BaseException:
            await self.close()
            raise
        return self

    @abstractmethod
    async def _exec(self, code: bytes, timeout: float) -> ExecResult: ...

    @abstractmethod
    async def _shell(self, command: bytes, timeout: float) -> ExecResult: ...

    @abstractmethod
    async def _terminal(self, command: bytes, timeout: float) -> ExecResult: ...

    @abstractmethod
    async def _write(self, path: str, data: bytes) -> None: ...

    @abstractmethod
    async def _read(self, path: str, max_bytes: int) -> bytes:
        """At most `max_bytes` + 1 bytes."""

    @abstractmethod
    async def _afresh(self) -> None:
        """End interpreter and terminal; files stay."""

    @abstractmethod
    async def _close(self) -> None: ...

    async def exec(self, code: str, *, timeout: float | None = None) -> ExecResult:
        return await self._run("code", code, self._exec, timeout)

    async def shell(self, command: str, *, timeout: float | None = None) -> ExecResult:
        return await self._run("command", command, self._shell, timeout)

    async def terminal(self, command: str, *, timeout: float | None = None) -> ExecResult:
        return await self._run("command", command, self._terminal, timeout)

    async def write_file(self, path: str, data: bytes) -> None:
        _check_path(path)
        if len(data) > MAX_FILE:
            raise SandboxFileError(f"{path}: {len(data)} bytes; at most {MAX_FILE} are written at once")
        await self._in_turn(lambda: self._write(path, data))

    async def read_file(self, path: str, max_bytes: int = 1 << 20) -> bytes:
        _check_path(path)
        if not 0 < max_bytes <= MAX_FILE:
            raise ValueError(f"max_bytes = {max_bytes!r}: must be from 1 to {MAX_FILE}")
        data = await self._in_turn(lambda: self._read(path, max_bytes))
        if len(data) > max_bytes:
            raise SandboxFileError(f"{path}: holds more than {max_bytes} bytes")
        return data

    async def snapshot(self) -> bytes:
        await self._helper(_TAKE, "taken")
        try:
            return await self.read_file(SNAPSHOT, MAX_FILE)
        finally:
            await self.shell(f"rm -f {self.scratch}")

    async def restore(self, snapshot: bytes) -> None:
        await self.write_file(SNAPSHOT, snapshot)
        await self._helper(_PUT, "restored")
        await self._in_turn(self._afresh)

    async def _helper(self, program: str, what: str) -> None:
        done = await self.shell(f'python3 -I -c "{program}" {self.scratch}')
        if not done.ok:
            raise SandboxFileError(f"the snapshot was not {what}: {done.stderr.strip()[-200:] or done.error}")

    async def furnish(self) -> None:
        """Put the spec's files there and run its set-up command."""
        for path, data in self.spec.files.items():
            await self._write(path, data)
        if self.spec.setup:
            done = await self._shell(self.spec.setup.encode(), self.spec.limits.timeout)
            if not done.ok:
                raise SandboxFault(f"the sandbox's set-up failed ({done.status}): {done.stderr or done.error}")

    async def close(self) -> None:
        self._closed = True
        await self._close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(
        self, what: str, text: str, run: Callable[[bytes, float], Awaitable[ExecResult]], timeout: float | None
    ) -> ExecResult:
        seconds = self._seconds(timeout)
        if refused := _refused(what, text):
            return refused
        return await self._in_turn(lambda: run(text.encode(), seconds))

    def _seconds(self, timeout: float | None) -> float:
        self.check_open()
        seconds = self.spec.limits.timeout if timeout is None else timeout
        if not 0 < seconds < float("inf"):
            raise ValueError(f"timeout = {seconds!r}: must be above 0 seconds")
        return seconds

    async def _in_turn(self, work: Callable[[], Awaitable[T]]) -> T:
        async with self._turn:
            self.check_open()
            return await work()

    def check_open(self) -> None:
        if self._closed:
            raise SandboxFault("the sandbox is closed")


def _refused(what: str, text: str) -> ExecResult | None:
    """A result in place of a run for what could not be run."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError as e:
        return ExecResult(ExecStatus.error, error=f"the {what} is no text: {e}")
    if size > MAX_CODE:
        return ExecResult(ExecStatus.error, error=f"the {what} has {size} bytes; at most {MAX_CODE} are run")
    if what == "command" and "\0" in text:
        return ExecResult(ExecStatus.error, error="the command has a NUL character")
    return None


def _check_path(path: str) -> None:
    if not path or "\0" in path or ".." in path.split("/"):
        raise SandboxFileError(f"{path!r}: not a path of the sandbox (no '..', no NUL)")
