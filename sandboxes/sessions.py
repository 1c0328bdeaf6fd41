"""The sandbox of backends that hold sessions: it makes a new session where a call ended the last one."""

from __future__ import annotations

from typing import Any, Protocol

from agentgym.errors import SandboxFault, SandboxFileError
from agentgym.execution import ExecResult, ExecStatus, SandboxLimits, SandboxSpec
from agentgym.sandboxes.base import BaseSandbox
from agentgym.sandboxes.output import cut


class Session(Protocol):
    """The processes of one sandbox, as a worker that answers requests."""

    async def call(self, op: str, payload: bytes, timeout: float, **more: Any) -> tuple[ExecResult, bytes]:
        """One request and its outcome with the bytes that it brought; a lost session is told by `state_lost`."""
        ...


class Sessions(Protocol):
    """Where sessions come from, and go."""

    async def session(self, spec: SandboxSpec) -> Any:
        """A fresh one (a `Session`); the spec's files and set-up are not its business."""
        ...

    async def discard(self, session: Any) -> None:
        """End it and what runs in it."""
        ...


class SessionSandbox(BaseSandbox):
    """See `ExecResult.state_lost`: after it the next call finds a fresh session with the spec's files."""

    def __init__(self, backend: Sessions, spec: SandboxSpec):
        super().__init__(spec)
        self._backend = backend
        self._session: Session | None = None

    async def live(self) -> Session:
        """The session, a new one where there is none."""
        self.check_open()
        if self._session is None:
            session = await self._backend.session(self.spec)
            try:
                self.check_open()  # it may have been closed meanwhile
            except SandboxFault:
                await self._backend.discard(session)
                raise
            self._session = session
            try:
                if self.spec.workdir:
                    await self._change_directory(self.spec.workdir)
                await self.furnish()
            except BaseException:
                await self._lose()  # half furnished it is of no use
                raise
        if self._session is None:
            raise SandboxFault("the sandbox's session ended while it was being set up")
        return self._session

    async def _change_directory(self, path: str) -> None:
        result, _ = await self._request("workdir", b"", self.spec.limits.timeout, path=path)
        if not result.ok:
            raise SandboxFault(f"sandbox workdir = {path!r}: {result.error}")

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

    async def _file(self, op: str, path: str, payload: bytes, **more: Any) -> bytes:
        result, data = await self._request(op, payload, self.spec.limits.timeout, path=path, **more)
        if result.status is ExecStatus.infra_error:
            raise SandboxFault(result.error)
        if not result.ok:
            raise SandboxFileError(f"{path}: {result.error}")
        return data

    async def _exec(self, code: bytes, timeout: float) -> ExecResult:
        return (await self._request("exec", code, timeout))[0]

    async def _shell(self, command: bytes, timeout: float) -> ExecResult:
        return (await self._request("shell", command, timeout))[0]

    async def _terminal(self, command: bytes, timeout: float) -> ExecResult:
        return (await self._request("terminal", command, timeout))[0]

    async def _write(self, path: str, data: bytes) -> None:
        await self._file("write", path, data)

    async def _read(self, path: str, max_bytes: int) -> bytes:
        return await self._file("read", path, b"", max_bytes=max_bytes)

    async def _afresh(self) -> None:
        await self._request("afresh", b"", self.spec.limits.timeout)

    async def _close(self) -> None:
        await self._lose()


def outcome(message: dict[str, Any], oom: bool, outputs: list[tuple[bytes, int]], limits: SandboxLimits) -> ExecResult:
    """A result from what a worker says, each field as the type that it should be whatever it says.

    outputs: of stdout and stderr the beginning and how much there was.
    """
    status = message.get("status")
    status = ExecStatus(status) if status in ("ok", "error", "oom") else ExecStatus.error
    code, duration, result = (message.get(name) for name in ("exit_code", "duration", "result"))
    (out, more_out), (err, more_err) = (cut(data, limits.output, size) for data, size in outputs)
    shown, cut_result = cut(result, limits.output) if isinstance(result, str) else (None, False)
    return ExecResult(
        status=ExecStatus.oom if oom else status,
        stdout=out,
        stderr=err,
        result=shown,
        error=str(message.get("error", ""))[: limits.output],
        exit_code=code if isinstance(code, int) else None,
        truncated=more_out or more_err or cut_result,
        duration=float(duration) if isinstance(duration, int | float) else 0.0,
    )
