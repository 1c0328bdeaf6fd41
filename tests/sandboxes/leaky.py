"""A backend that holds nothing, to see that the probes tell."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from agentgym.execution import Capabilities, ExecResult, ExecStatus, SandboxSpec
from agentgym.sandboxes.base import BaseSandbox


class LeakySandbox(BaseSandbox):
    """A bare process for every call, as unsafe as can be; it knows at least a deadline, for the tests' sake."""

    def __init__(self, spec: SandboxSpec):
        super().__init__(spec)
        self._folder = tempfile.TemporaryDirectory()

    async def _run_bare(self, *command: str, timeout: float) -> ExecResult:
        null = asyncio.subprocess.DEVNULL
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=null, stdout=out, stderr=err, cwd=self._folder.name, close_fds=False
            )
            try:
                await asyncio.wait_for(process.wait(), timeout)
            except BaseException as e:
                process.kill()
                await process.wait()
                if not isinstance(e, TimeoutError):
                    raise
                return ExecResult(ExecStatus.timeout)
            texts = [os.pread(file.fileno(), 1 << 30, 0).decode(errors="replace") for file in (out, err)]
        return ExecResult(ExecStatus.error if process.returncode else ExecStatus.ok, *texts, error=texts[1][-200:])

    async def _exec(self, code: bytes, timeout: float) -> ExecResult:
        file = Path(self._folder.name, ".code.py")
        file.write_bytes(code)
        return await self._run_bare(sys.executable, "-I", "-S", str(file), timeout=timeout)

    async def _shell(self, command: bytes, timeout: float) -> ExecResult:
        return await self._run_bare("/bin/sh", "-c", command.decode(), timeout=timeout)

    async def _terminal(self, command: bytes, timeout: float) -> ExecResult:
        return await self._shell(command, timeout)

    async def _write(self, path: str, data: bytes) -> None:
        Path(self._folder.name, path).write_bytes(data)

    async def _read(self, path: str, max_bytes: int) -> bytes:
        try:
            return Path(self._folder.name, path).read_bytes()
        except OSError:
            return b""

    async def _afresh(self) -> None:
        pass

    async def _close(self) -> None:
        self._folder.cleanup()


class LeakyBackend:
    capabilities = Capabilities("none", "none", network="host")

    async def create(self, spec: SandboxSpec) -> LeakySandbox:
        return LeakySandbox(spec)

    async def aclose(self) -> None:
        pass
