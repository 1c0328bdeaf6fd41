"""The local backend: sessions of one zygote, some forked ahead."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from agentgym.errors import SandboxFault, SandboxFileError, SandboxUnavailable
from agentgym.execution import Capabilities, ExecResult, ExecStatus, SandboxLimits, SandboxSpec
from agentgym.sandboxes.local.cgroups import Groups
from agentgym.sandboxes.local.session import Session
from agentgym.sandboxes.local.zygote import Zygote

MAX_CODE = 1 << 20


class LocalSandbox:
    """A session that is made again where a call ended it; see `ExecResult.state_lost`."""

    def __init__(self, backend: LocalBackend, spec: SandboxSpec):
        self._backend = backend
        self._spec = spec
        self._session: Session | None = None
        self._closed = False

    async def live(self) -> Session:
        self._check_open()
        if self._session is None:
            session = await self._backend.session(self._spec.limits)
            try:
                self._check_open()  # it may have been closed meanwhile
            except SandboxFault:
                await self._backend.discard(session)
                raise
            self._session = session
            try:
                await self._furnish()
            except BaseException:
                await self._lose()  # half furnished it is of no use
                raise
        if self._session is None:
            raise SandboxFault("the sandbox's session ended while it was being set up")
        return self._session

    async def _lose(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await self._backend.discard(session)

    def _check_open(self) -> None:
        if self._closed:
            raise SandboxFault("the sandbox is closed")

    async def _furnish(self) -> None:
        for path, data in self._spec.files.items():
            await self.write_file(path, data)
        if self._spec.setup:
            done = await self.shell(self._spec.setup)
            if not done.ok:
                raise SandboxFault(f"the sandbox's set-up failed ({done.status}): {done.stderr or done.error}")

    async def _call(self, op: str, payload: bytes, timeout: float | None) -> ExecResult:
        seconds = self._spec.limits.timeout if timeout is None else timeout
        if not seconds > 0:
            raise ValueError(f"timeout = {seconds!r}: must be above 0 seconds")
        return (await self._request(op, payload, seconds))[0]

    async def _request(self, op: str, payload: bytes, seconds: float, **more: Any) -> tuple[ExecResult, bytes]:
        session = await self.live()
        try:
            result, data = await session.call(op, payload, seconds, **more)
        except BaseException:
            await self._lose()  # it was ended in the middle of a call
            raise
        if result.state_lost:
            await self._lose()
        return result, data

    async def exec(self, code: str, *, timeout: float | None = None) -> ExecResult:
        try:
            payload = code.encode()
        except UnicodeEncodeError as e:
            return ExecResult(ExecStatus.error, error=f"the code is no text: {e}")
        if len(payload) > MAX_CODE:
            return ExecResult(ExecStatus.error, error=f"the code has {len(payload)} bytes; at most {MAX_CODE} are run")
        return await self._call("exec", payload, timeout)

    async def shell(self, command: str, *, timeout: float | None = None) -> ExecResult:
        return await self._call("shell", command.encode(errors="replace"), timeout)

    async def write_file(self, path: str, data: bytes) -> None:
        result, _ = await self._request("write", data, self._spec.limits.timeout, path=path)
        if not result.ok:
            raise SandboxFileError(f"{path}: {result.error}")

    async def read_file(self, path: str, max_bytes: int = 1 << 20) -> bytes:
        result, data = await self._request("read", b"", self._spec.limits.timeout, path=path, max_bytes=max_bytes)
        if not result.ok:
            raise SandboxFileError(f"{path}: {result.error}")
        if len(data) > max_bytes:
            raise SandboxFileError(f"{path}: holds more than {max_bytes} bytes")
        return data

    async def close(self) -> None:
        self._closed = True
        await self._lose()

    async def __aenter__(self) -> LocalSandbox:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class LocalBackend:
    """Forks sessions from a zygote; `preload` names modules that every session finds imported (numpy, sympy).

    `warm`: how many sessions of the limits last asked for are kept ready.
    """

    def __init__(self, *, preload: Sequence[str] = (), warm: int = 4):
        self._zygote = Zygote(preload)
        self._warm = warm
        self._ready: dict[SandboxLimits, list[Session]] = {}
        self._groups: Groups | None = None
        self._opened = False
        self._live: set[Session] = set()
        self._filling: asyncio.Task[None] | None = None

    @property
    def capabilities(self) -> Capabilities:
        self._open()
        return Capabilities("namespaces", "cgroup" if self._groups is not None else "watchdog")

    async def create(self, spec: SandboxSpec) -> LocalSandbox:
        """A sandbox whose session is running; raises `SandboxUnavailable` where this machine cannot hold one."""
        if spec.image:
            raise SandboxUnavailable("the local sandbox has no images; use the docker backend")
        sandbox = LocalSandbox(self, spec)
        try:
            await sandbox.live()
        except BaseException:
            await sandbox.close()
            raise
        return sandbox

    async def session(self, limits: SandboxLimits) -> Session:
        """A fresh session, a ready one where there is one."""
        self._open()
        if not self._zygote.alive:  # those that were ready ended with it
            for dead in [session for sessions in self._ready.values() for session in sessions]:
                await self.discard(dead)
            self._ready.clear()
        ready = self._ready.get(limits)
        session = ready.pop() if ready else await self._fork(limits)
        if self._warm and (self._filling is None or self._filling.done()):
            self._filling = asyncio.get_running_loop().create_task(self._fill(limits))
        return session

    async def _fork(self, limits: SandboxLimits) -> Session:
        session = Session(self._zygote, self._groups, limits)
        self._live.add(session)
        try:
            await session.start()
        except BaseException:
            self._live.discard(session)
            raise
        return session

    async def _fill(self, limits: SandboxLimits) -> None:
        ready = self._ready.setdefault(limits, [])
        for other in [known for known in self._ready if known != limits]:
            for session in self._ready.pop(other):
                await self.discard(session)
        with contextlib.suppress(SandboxFault):  # whoever needs the next one is told
            while len(ready) < self._warm:
                ready.append(await self._fork(limits))

    async def discard(self, session: Session) -> None:
        await session.end()
        self._live.discard(session)

    async def aclose(self) -> None:
        if self._filling is not None:
            self._filling.cancel()
            await asyncio.gather(self._filling, return_exceptions=True)
            self._filling = None
        for session in list(self._live):
            await self.discard(session)
        self._ready.clear()
        self._zygote.close()
        if self._groups is not None:
            self._groups.close()
            self._groups, self._opened = None, False

    def _open(self) -> None:
        if not self._opened:
            self._groups, self._opened = Groups.open(), True
