"""The sandbox of the E2B backend: a machine in the cloud that is made again where a call ended it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import shlex
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from e2b import CommandExitException, SandboxQuery
from e2b_code_interpreter import AsyncSandbox

from agentgym.errors import SandboxFault, SandboxFileError
from agentgym.execution import ExecResult, ExecStatus, SandboxSpec
from agentgym.sandboxes.base import BaseSandbox
from agentgym.sandboxes.e2b import faults
from agentgym.sandboxes.e2b.output import FLOOD, Flood, Gathered
from agentgym.sandboxes.e2b.terminal import OURS, Terminal
from agentgym.sandboxes.output import cut

if TYPE_CHECKING:
    from agentgym.sandboxes.e2b.backend import E2BBackend

__all__ = ["AsyncSandbox", "E2BSandbox", "SandboxQuery"]
RESERVE = 30.0
"""Seconds that a machine is to live on after a call's deadline."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class E2BSandbox(BaseSandbox):
    """See `ExecResult.state_lost`: after it the next call finds a fresh machine with the spec's files."""

    def __init__(self, backend: E2BBackend, spec: SandboxSpec):
        super().__init__(spec)
        self._backend = backend
        self._machine: Any = None
        self._context: Any = None
        self._bash: Terminal | None = None
        self._expires = 0.0

    async def live(self) -> Any:
        """The machine, a new one where there is none."""
        self.check_open()
        if self._machine is None:
            seconds = max(self._backend.lifetime, math.ceil(self.spec.limits.timeout + RESERVE))
            self._expires = time.monotonic() + seconds
            machine = await self._backend.machine(self.spec, seconds)
            if self._closed:
                await self._backend.kill(machine)
                self.check_open()
            self._machine = machine
            try:
                await self._prepare(machine)
                await self.furnish()
            except Exception as e:
                await self._lose()  # half furnished it is of no use
                if isinstance(e, SandboxFault | SandboxFileError):
                    raise
                raise faults.of_creation(e, self.spec.image) from e
            except BaseException:
                await self._lose()
                raise
        if self._machine is None:
            raise SandboxFault("the sandbox's machine ended while it was being set up")
        return self._machine

    async def _prepare(self, machine: Any) -> None:
        if self.spec.workdir:
            async with asyncio.timeout(self.spec.limits.timeout):
                await machine.commands.run(f"mkdir -p {shlex.quote(self.spec.workdir)}", request_timeout=OURS)
                self._context = await machine.create_code_context(cwd=self.spec.workdir)

    async def _lose(self) -> None:
        machine, self._machine, self._context = self._machine, None, None
        try:
            await self._leave_terminal()
        finally:
            if machine is not None:
                await self._backend.kill(machine)

    async def _leave_terminal(self) -> None:
        terminal, self._bash = self._bash, None
        if terminal is not None:
            await terminal.close()

    async def _call(
        self, timeout: float, out: Gathered, err: Gathered, run: Callable[[Any], Awaitable[ExecResult]]
    ) -> ExecResult:
        """`run` on the machine; whatever leaves it in doubt ends the machine."""
        began = time.monotonic()
        result = await self._outcome(timeout, run)
        (stdout, more_out), (stderr, more_err) = out.told(), err.told()
        return replace(
            result,
            stdout=stdout,
            stderr=stderr,
            error=cut(result.error, self.spec.limits.output)[0],
            truncated=result.truncated or more_out or more_err,
            duration=time.monotonic() - began,
        )

    async def _outcome(self, timeout: float, run: Callable[[Any], Awaitable[ExecResult]]) -> ExecResult:
        machine = await self.live()
        began, deadline = time.monotonic(), asyncio.timeout(None)
        try:
            await self._renew(machine, timeout)
            began = time.monotonic()
            # the SDK leaves the deadline of a command to the far side, which may be gone
            async with asyncio.timeout(timeout) as deadline:
                result = await run(machine)
        except Exception as e:
            if known := faults.refused(e):
                raise known from e
            over = deadline.expired() or (faults.is_deadline(e) and time.monotonic() - began >= 0.9 * timeout)
            result = _broken(e, timeout if over else None)
        except BaseException:
            await self._lose()  # it was ended in the middle of a call
            raise
        if result.state_lost:
            await self._lose()
        return result

    async def _renew(self, machine: Any, timeout: float) -> None:
        left, lifetime = self._expires - time.monotonic(), self._backend.lifetime
        needed = timeout + RESERVE
        if left < max(needed, lifetime / 2):
            seconds = max(lifetime, math.ceil(needed))
            await machine.set_timeout(seconds)
            self._expires = time.monotonic() + seconds

    def _streams(self, most: int | None = None) -> tuple[Gathered, Gathered]:
        return Gathered(self.spec.limits.output, most), Gathered(self.spec.limits.output, most)

    async def _exec(self, code: bytes, timeout: float) -> ExecResult:
        out, err = self._streams(FLOOD)  # the SDK keeps all of it in memory

        async def run(machine: Any) -> ExecResult:
            execution = await machine.run_code(
                code.decode(),
                context=self._context,
                timeout=timeout,
                on_stdout=lambda message: out.add(message.line),
                on_stderr=lambda message: err.add(message.line),
            )
            if execution.error is not None:
                err.add(_COLOURS.sub("", execution.error.traceback or ""))
            return self._told(execution)

        return await self._call(timeout, out, err, run)

    def _told(self, execution: Any) -> ExecResult:
        error = execution.error
        if error is not None and not error.traceback:  # the server's own word, not an exception of the code
            if error.name == "ContextRestarting":
                return ExecResult(ExecStatus.killed, error="the interpreter's process ended", state_lost=True)
            if error.name == "UnexpectedEndOfExecution":
                return ExecResult(ExecStatus.infra_error, error=f"{error.name}: {error.value}", state_lost=True)
        if execution.execution_count is None:  # the SDK passes over an end that was not one
            lost = "the interpreter did not say that it had run the code"
            return ExecResult(ExecStatus.infra_error, error=lost, state_lost=True)
        if error is not None and not (error.name == "SystemExit" and error.value in ("", "0", "None")):
            status = ExecStatus.oom if error.name == "MemoryError" else ExecStatus.error
            return ExecResult(status, error=f"{error.name}: {error.value}" if error.value else error.name)
        text = execution.text
        shown, was_cut = cut(text, self.spec.limits.output) if text is not None else (None, False)
        return ExecResult(ExecStatus.ok, result=shown, truncated=was_cut)

    async def _shell(self, command: bytes, timeout: float) -> ExecResult:
        out, err = self._streams()

        async def run(machine: Any) -> ExecResult:
            try:
                await machine.commands.run(
                    command.decode(),
                    cwd=self.spec.workdir or None,
                    timeout=timeout,
                    request_timeout=OURS,
                    on_stdout=out.add,
                    on_stderr=err.add,
                    retain_output=False,
                )
            except CommandExitException as e:
                return ExecResult(ExecStatus.error, exit_code=e.exit_code)
            return ExecResult(ExecStatus.ok, exit_code=0)

        return await self._call(timeout, out, err, run)

    async def _terminal(self, command: bytes, timeout: float) -> ExecResult:
        out, err = self._streams()

        async def run(machine: Any) -> ExecResult:
            if self._bash is None:
                self._bash = Terminal()
                await self._bash.start(machine, self.spec.workdir or None)
            code, ended = await self._bash.run(command, out, err)
            if ended:
                await self._leave_terminal()
            error = "the terminal ended; the next command gets a new one" if ended else ""
            return ExecResult(ExecStatus.error if code or ended else ExecStatus.ok, error=error, exit_code=code)

        return await self._call(timeout, out, err, run)

    def _path(self, path: str) -> str:
        """Relative ones are under the working directory; without one E2B takes its user's home."""
        return path if path.startswith("/") or not self.spec.workdir else f"{self.spec.workdir}/{path}"

    async def _file(self, path: str, work: Callable[[Any], Awaitable[bytes]]) -> bytes:
        machine = await self.live()
        try:
            await self._renew(machine, self.spec.limits.timeout)
            return await work(machine)
        except Exception as e:
            known = faults.of_file(e, path)
            if isinstance(known, SandboxFault) and not faults.refused(e):
                await self._lose()
            raise known from e
        except BaseException:
            await self._lose()
            raise

    async def _write(self, path: str, data: bytes) -> None:
        async def put(machine: Any) -> bytes:
            await machine.files.write(self._path(path), data)
            return b""

        await self._file(path, put)

    async def _read(self, path: str, max_bytes: int) -> bytes:
        async def get(machine: Any) -> bytes:
            data = bytearray()
            pieces = await machine.files.read(self._path(path), format="stream")
            try:
                async for piece in pieces:
                    data += piece
                    if len(data) > max_bytes:
                        break
            finally:
                with contextlib.suppress(Exception):
                    await pieces.aclose()
            return bytes(data[: max_bytes + 1])

        return await self._file(path, get)

    async def _afresh(self) -> None:
        async def again(machine: Any) -> bytes:
            await self._leave_terminal()
            old = self._context
            self._context = await machine.create_code_context(cwd=self.spec.workdir or None)
            if old is not None:
                await machine.remove_code_context(old)
            return b""

        await self._file("the interpreter", again)

    async def _close(self) -> None:
        await self._lose()


def _broken(e: Exception, timeout: float | None) -> ExecResult:
    if isinstance(e, Flood):
        return ExecResult(ExecStatus.killed, error=str(e), state_lost=True)
    if timeout is not None:
        return ExecResult(ExecStatus.timeout, error=f"timed out after {timeout:g} s", state_lost=True)
    return ExecResult(ExecStatus.infra_error, error=f"the e2b sandbox failed: {faults.one_line(e)}", state_lost=True)
