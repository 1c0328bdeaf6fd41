"""A shell that lives on in the sandbox: commands go to its stdin, a mark in both its streams ends each of them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shlex
from collections.abc import Callable
from typing import Any

from e2b import CommandExitException

from agentgym.sandboxes.e2b.output import Gathered

OURS = 0
"""No deadline of the SDK's for a command to begin: this side has one, and in its own the SDK leaves a task behind."""


class Stream:
    """One of the shell's streams: passes on what comes before the mark, and tells when that came."""

    def __init__(self, tell: Callable[[], None]):
        self._tell = tell
        self._held = ""
        self._mark = ""
        self._to: Gathered | None = None
        self.code: int | None = None
        """What stood at the mark; None until it comes."""

    def expect(self, mark: str, to: Gathered) -> None:
        self._mark, self._to, self._held, self.code = mark, to, "", None

    def add(self, text: str) -> None:
        if self._to is None or self.code is not None:
            return  # a background job that outlived its command: nobody waits for it
        self._held += text
        before, found, rest = self._held.partition(self._mark)
        if found and "\n" in rest:
            self._to.add(before)
            word = rest.partition("\n")[0]
            self.code = int(word) if word.isdigit() else 1
            self._held = ""
            self._tell()
        elif not found:
            ready = max(0, len(self._held) - len(self._mark))  # its end may be the mark's beginning
            self._to.add(self._held[:ready])
            self._held = self._held[ready:]

    def flush(self) -> None:
        if self._to is not None and self.code is None:
            self._to.add(self._held)
            self._held = ""


class Terminal:
    """The shell's process, seen from here; `close` lets go of it."""

    def __init__(self) -> None:
        self._out, self._err = Stream(self._look), Stream(self._look)
        self._marked = asyncio.Event()
        self._handle: Any = None
        self._ended: asyncio.Task[int | None] | None = None

    async def start(self, machine: Any, cwd: str | None) -> None:
        self._handle = await machine.commands.run(
            "exec /bin/bash",
            background=True,
            stdin=True,
            timeout=0,
            request_timeout=OURS,
            cwd=cwd,
            on_stdout=self._out.add,
            on_stderr=self._err.add,
            retain_output=False,
        )
        self._ended = asyncio.create_task(_exit_code(self._handle.wait))

    def _look(self) -> None:
        if self._out.code is not None and self._err.code is not None:
            self._marked.set()

    async def run(self, command: bytes, out: Gathered, err: Gathered) -> tuple[int | None, bool]:
        """(exit code, whether the shell itself ended)."""
        assert self._ended is not None
        mark = f"\x1e{secrets.token_hex(12)} "
        self._marked.clear()
        self._out.expect(mark, out)
        self._err.expect(mark, err)
        # `command` keeps a syntax error from ending the shell
        ends = f"printf '{mark}%d\\n' $?; printf '{mark}0\\n' >&2"
        await self._handle.send_stdin(f"command eval {shlex.quote(command.decode())} </dev/null; {ends}\n")
        marked = asyncio.create_task(self._marked.wait())
        try:
            await asyncio.wait({marked, self._ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            marked.cancel()
            for stream in (self._out, self._err):
                stream.flush()
        if self._marked.is_set():
            return self._out.code, False
        return await self._ended, True

    async def close(self) -> None:
        if self._ended is not None:
            self._ended.cancel()
            await asyncio.gather(self._ended, return_exceptions=True)
        if self._handle is not None:
            with contextlib.suppress(Exception):
                await self._handle.disconnect()


async def _exit_code(wait: Callable[[], Any]) -> int | None:
    try:
        code: int = (await wait()).exit_code
    except CommandExitException as e:
        code = e.exit_code
    return code
