"""One container, seen from the host: requests to its supervisor, the answers, its end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from dataclasses import replace
from typing import Any

from agentgym.errors import SandboxFault
from agentgym.execution import ExecResult, ExecStatus, SandboxLimits
from agentgym.sandboxes.docker.engine import Engine, connection_errors
from agentgym.sandboxes.docker.owners import remove
from agentgym.sandboxes.docker.stream import Incoming
from agentgym.sandboxes.local.jail.wire import HEADER, MAX_JSON, Garbled, pack, parse, sizes
from agentgym.sandboxes.sessions import outcome

READY_SECONDS = 60.0
STOP_SECONDS = 1.0
"""How long the supervisor may take to end everything; then the engine does."""


class Ended(Exception):
    """The container's stream closed."""


class ContainerSession:
    """A running container and the stream to its first process. Lives until `end`."""

    def __init__(self, engine: Engine, name: str, stream: socket.socket, limits: SandboxLimits):
        self.name = name
        self.limits = limits
        self._engine = engine
        self._stream: socket.socket | None = stream
        self._incoming = Incoming()
        self._in_step = True
        """No request is half sent: the supervisor can be asked to stop."""
        self._busy = self._ending = False
        self.gone = False
        """The container is removed."""

    def greet(self, program: bytes) -> None:
        """Send what the first process runs and wait until it does; raises `SandboxFault`. Blocks."""
        assert self._stream is not None
        deadline = time.monotonic() + READY_SECONDS
        try:
            self._stream.settimeout(READY_SECONDS)
            self._stream.sendall(program)
            while (frame := self._incoming.frame()) is None:
                self._stream.settimeout(max(0.01, deadline - time.monotonic()))
                part = self._stream.recv(1 << 16)
                if not part:
                    raise Ended("it ended at once")
                self._incoming.feed(part)
        except (OSError, Ended, Garbled) as e:
            said = self._incoming.errors.decode(errors="replace").strip()
            raise SandboxFault(f"a container did not begin ({e or type(e).__name__}): {said[-1000:]}") from e
        if frame[0].get("kind") != "ready":
            raise SandboxFault(f"a container did not begin: {frame[0]}")
        self._stream.setblocking(False)

    @property
    def alive(self) -> bool:
        """Whether the stream is open, as far as can be said without asking."""
        if self._stream is None:
            return False
        try:
            return self._stream.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    async def call(self, op: str, payload: bytes, timeout: float, **more: Any) -> tuple[ExecResult, bytes]:
        """One request and its outcome; whatever keeps the stream from being in step ends the container."""
        expected = int(more.get("max_bytes", 0)) + 1 + MAX_JSON + HEADER.size
        try:
            async with asyncio.timeout(timeout):
                request = pack({"op": op, "output": self.limits.output, **more}, payload)
                answer, report, outputs = await self._request(request, expected)
        except TimeoutError:
            return self._over(ExecStatus.timeout, f"timed out after {timeout:g} s", *await self._stop()), b""
        except Garbled as e:
            return self._over(ExecStatus.killed, str(e), *await self._stop()), b""
        except (OSError, Ended):
            if self._ending:
                raise SandboxFault("the sandbox was closed in the middle of a call") from None
            status, why = await self._engine.run(self._why)
            return self._over(status, why, {}, b""), b""
        except BaseException:
            await self.end()
            raise
        if report.get("ended"):
            return self._over(ExecStatus.killed, "the session's process ended", report, outputs), b""
        try:
            text, size = sizes(answer[: HEADER.size])
            message, data = parse(answer[HEADER.size : HEADER.size + text]), answer[HEADER.size + text :]
        except (Garbled, struct.error) as e:
            return self._over(ExecStatus.killed, str(e), report, outputs), b""
        return outcome(message, bool(report.get("oom")), _outputs(report, outputs), self.limits), data[:size]

    def _over(self, status: ExecStatus, error: str, report: dict[str, Any], outputs: bytes) -> ExecResult:
        told = outcome({}, False, _outputs(report, outputs), self.limits)
        if status is ExecStatus.killed and report.get("oom"):
            status = ExecStatus.oom
        return replace(told, status=status, error=error, state_lost=True)

    async def _request(self, request: bytes, expected: int) -> tuple[bytes, dict[str, Any], bytes]:
        """(the worker's answer, the supervisor's report, what it brought)."""
        if self._stream is None or self._busy:
            raise SandboxFault("the container is not there to be asked")
        self._incoming.limit = 2 * self.limits.output + (1 << 20)
        self._busy, self._in_step = True, False
        try:
            await asyncio.get_running_loop().sock_sendall(self._stream, request)
            self._in_step = True
            return await self._reply(expected)
        finally:
            self._busy = False
            if self._ending:
                self.hang_up()

    async def _reply(self, expected: int) -> tuple[bytes, dict[str, Any], bytes]:
        answer = bytearray()
        while True:
            message, payload = await self._receive()
            if message.get("kind") == "report":
                return bytes(answer), message, payload
            answer += payload
            if len(answer) > expected:
                raise Garbled("an answer that is too large")

    async def _receive(self) -> tuple[dict[str, Any], bytes]:
        assert self._stream is not None
        loop = asyncio.get_running_loop()
        while (frame := self._incoming.frame()) is None:
            part = await loop.sock_recv(self._stream, 1 << 16)
            if not part:
                raise Ended
            self._incoming.feed(part)
        return frame

    async def _stop(self) -> tuple[dict[str, Any], bytes]:
        """End all that runs in it, and the report of that; by the engine, without one, where nobody answers."""
        if self._stream is None:
            return {}, b""
        try:
            if not self._in_step:
                raise Ended
            async with asyncio.timeout(STOP_SECONDS):
                await asyncio.get_running_loop().sock_sendall(self._stream, pack({"op": "stop"}))
                while True:
                    message, payload = await self._receive()
                    if message.get("ended"):
                        return message, payload
        except (OSError, Ended, Garbled):  # TimeoutError is an OSError
            await self._engine.run(self.abandon)
            return {}, b""
        finally:
            self.hang_up()

    def _why(self) -> tuple[ExecStatus, str]:
        """What became of a container whose stream closed without a report. Blocks."""
        from docker.errors import DockerException, NotFound

        try:
            state = self._ended_state()
        except NotFound:
            return ExecStatus.infra_error, "the container is gone"
        except (DockerException, *connection_errors()) as e:
            return ExecStatus.infra_error, f"the Docker engine does not answer: {e}"
        code = state.get("ExitCode")
        if state.get("OOMKilled"):
            return ExecStatus.oom, "the container ran out of memory"
        if state.get("Running") or code == 137:  # nothing inside can kill the first process
            return ExecStatus.infra_error, "the container was ended from outside"
        said = self._incoming.errors.decode(errors="replace").strip()
        return ExecStatus.killed, f"the container ended with code {code} {said}".strip()

    def _ended_state(self) -> dict[str, Any]:
        """The engine hears of the end a little after the stream does."""
        deadline = time.monotonic() + STOP_SECONDS
        while True:
            state: dict[str, Any] = self._engine.client.inspect_container(self.name)["State"]
            if not state.get("Running") or time.monotonic() > deadline:
                return state
            time.sleep(0.02)

    async def end(self) -> None:
        """Kill everything in it; the container itself is removed meanwhile. Safe again, and under cancellation."""
        if not self._ending:
            self._ending = True
            await asyncio.shield(self._end())

    async def _end(self) -> None:
        if self._busy and self._stream is not None:
            with contextlib.suppress(OSError):
                self._stream.shutdown(socket.SHUT_RDWR)  # who waits on it is told, and so is the supervisor
        else:
            await self._stop()
        self._engine.submit(self.abandon)

    def abandon(self) -> None:
        """Remove the container, whatever runs in it. Blocks."""
        if not self._busy:  # closed under a loop that waits on it, it would never wake that
            self.hang_up()
        self.gone = remove(self._engine, self.name) == ""

    def hang_up(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _outputs(report: dict[str, Any], payload: bytes) -> list[tuple[bytes, int]]:
    """Beginnings and sizes of stdout and stderr, of a report that may say anything."""
    told = report.get("sizes")
    taken = report.get("taken")
    taken = taken if isinstance(taken, int) and 0 <= taken <= len(payload) else len(payload)
    parts = [payload[:taken], payload[taken:]]
    if not (isinstance(told, list) and len(told) == 2 and all(isinstance(size, int) for size in told)):
        told = [len(part) for part in parts]
    return [(part, max(size, len(part))) for part, size in zip(parts, told, strict=True)]
