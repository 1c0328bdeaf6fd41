"""The sandbox of the local backend: a session that is made again where a call ended it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentgym.errors import SandboxFault, SandboxFileError
from agentgym.execution import ExecResult, SandboxSpec
from agentgym.sandboxes.base import BaseSandbox
from agentgym.sandboxes.local.session import Session

if TYPE_CHECKING:
    from agentgym.sandboxes.local.backend import LocalBackend


class LocalSandbox(BaseSandbox):
    """See `ExecResult.state_lost`: after it the next call finds a fresh session with the spec's files."""

    scratch = '"$TMPDIR"/.snapshot.tar'

    def __init__(self, backend: LocalBackend, spec: SandboxSpec):
        super().__init__(spec)
        self._backend = backend
        self._session: Session | None = None

    async def live(self) -> Session:
        """The session, a new one where there is none."""
        self.check_open()
        if self._session is None:
            session = await self._backend.session(self.spec.limits)
            try:
                self.check_open()  # it may have been closed meanwhile
            except SandboxFault:
                await self._backend.discard(session)
                raise
            self._session = session
            try:
                if self.spec.workdir:
                    await self._request("workdir", b"", self.spec.limits.timeout, path=self.spec.workdir)
                await self.furnish()
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

    async def _exec(self, code: bytes, timeout: float) -> ExecResult:
        return (await self._request("exec", code, timeout))[0]

    async def _shell(self, command: bytes, timeout: float) -> ExecResult:
        return (await self._request("shell", command, timeout))[0]

    async def _terminal(self, command: bytes, timeout: float) -> ExecResult:
        return (await self._request("terminal", command, timeout))[0]

    async def _write(self, path: str, data: bytes) -> None:
        result, _ = await self._request("write", data, self.spec.limits.timeout, path=path)
        if not result.ok:
            raise SandboxFileError(f"{path}: {result.error}")

    async def _read(self, path: str, max_bytes: int) -> bytes:
        result, data = await self._request("read", b"", self.spec.limits.timeout, path=path, max_bytes=max_bytes)
        if not result.ok:
            raise SandboxFileError(f"{path}: {result.error}")
        return data

    async def _afresh(self) -> None:
        await self._request("afresh", b"", self.spec.limits.timeout)

    async def _close(self) -> None:
        await self._lose()
