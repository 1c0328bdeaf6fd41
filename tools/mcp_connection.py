"""One live connection to an MCP server: a task that keeps it open, on the one event loop that all of them share.

The SDK's contexts have to be left by the task that entered them, and an env may be stepped from any loop or from none.
So the connections live on a loop of their own, and requests are handed over to it.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import weakref
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from agentgym.errors import AgentGymError, ToolError, ToolFault
from agentgym.tools.driving import LoopThread
from agentgym.tools.mcp_sdk import Answer, Closed, Command, Listed, Peer, Refusal, Remote, connect, first_of, text_of
from agentgym.tools.signals import ToolFailed

CLOSE_S = 8.0
"""Seconds a server is given to end: the SDK asks it, then terminates it, then kills it."""
PROBE_S = 3.0
"""Seconds for a sign of life from a server that has not answered in time."""
loop = LoopThread("agentgym-mcp")
_open: weakref.WeakSet[Connection] = weakref.WeakSet()


class Connection:
    """Everything but `__init__` is called on `loop`."""

    def __init__(self, server: Command | Remote):
        self._server = server
        self._peer: Peer | None = None
        self._pid = os.getpid()
        self._ended = asyncio.Event()
        """The server or the connection is gone, for whatever reason."""
        self._stop = asyncio.Event()
        self._stderr = Stderr()
        self._task: asyncio.Task[None] | None = None
        self._problem = ""
        self.tools: list[Listed] = []

    @property
    def alive(self) -> bool:
        return not self._ended.is_set() and self._pid == os.getpid()

    @property
    def closed(self) -> bool:
        """Nothing is left of it: its process is reaped."""
        return self._pid != os.getpid() or self._task is None or self._task.done()

    async def open(self, timeout: float) -> None:
        """Start the server and ask for its tools; raises `ToolFault`, or `ToolError` for no such command."""
        _open.add(self)
        ready = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._hold(ready))
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait({ready, ended}, timeout=timeout, return_when="FIRST_COMPLETED")
            if ended.done():  # and why is about to be known
                await asyncio.wait({ready}, timeout=1.0)
        except asyncio.CancelledError:
            self.abandon()
            raise
        finally:
            ended.cancel()
        if ready.done():
            error = ready.exception()
            if error is None and self.alive:
                return
            self.abandon()
            if isinstance(error, AgentGymError):
                raise error
            if isinstance(error, FileNotFoundError | PermissionError | NotADirectoryError):
                raise ToolError(f"MCP server {self._server}: cannot be started: {error}")
        else:
            ready.cancel()
            late = not self._ended.is_set()
            self.abandon()
            if late:
                raise ToolFault(f"MCP server {self._server}: not ready within {timeout:g} s{self._stderr.told()}")
        raise ToolFault(f"MCP server {self._server}: did not start{await self._why()}")

    async def _hold(self, ready: asyncio.Future[None]) -> None:
        try:
            async with connect(self._server, self._stderr.file(), self._gone) as peer:
                self.tools = await peer.list_tools()
                self._peer = peer
                if not ready.done():
                    ready.set_result(None)
                await self._stop.wait()
        except BaseException as e:
            self._problem = text_of(e)
            if not ready.done():
                first = first_of(e)
                ready.set_exception(first if isinstance(first, Exception) else Closed("it was stopped"))
            if isinstance(e, asyncio.CancelledError) or not isinstance(e, Exception | BaseExceptionGroup):
                raise
        finally:
            self._ended.set()
            self._stderr.close()

    def _gone(self) -> None:
        self._ended.set()
        self._stop.set()

    async def call(self, name: str, arguments: Mapping[str, Any], timeout: float) -> Answer:
        """Raises `ToolFailed` for what the server refuses, TimeoutError where it is slow but there, `ToolFault` where
        it is gone or no longer answers: it is then stopped."""
        assert self._peer is not None
        request = asyncio.ensure_future(self._peer.call(name, arguments))
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait({request, ended}, timeout=timeout, return_when="FIRST_COMPLETED")
            if not request.done() and not ended.done():
                await self._probe(name, request, timeout)
            if not request.done():  # its answer may be on the way
                await asyncio.wait({request}, timeout=0.5)
            if request.done():
                return request.result()
            raise Closed
        except Refusal as refused:
            raise ToolFailed(f"error: {refused}") from None
        except (AgentGymError, TimeoutError):
            raise
        except Exception as e:
            self.abandon()
            told = "" if isinstance(e, Closed) else f" ({text_of(e)})"
            raise ToolFault(f"MCP server {self._server}: gone during {name}{told}{await self._why()}") from None
        finally:
            for waiting in (request, ended):
                waiting.cancel()

    async def _probe(self, name: str, request: asyncio.Future[Any], timeout: float) -> None:
        """A server that answers something else is slow; one that answers nothing hangs."""
        assert self._peer is not None
        sign: asyncio.Future[Any] = asyncio.ensure_future(self._peer.list_tools())
        await asyncio.wait({sign, request}, timeout=min(PROBE_S, timeout), return_when="FIRST_COMPLETED")
        answers = sign.done() and (sign.exception() is None or isinstance(sign.exception(), Refusal))
        sign.cancel()
        if request.done():
            return
        if answers:
            raise TimeoutError(f"{name} timed out after {timeout:g} s")
        if self._ended.is_set() or sign.done():
            raise Closed
        self.abandon()
        raise ToolFault(f"MCP server {self._server}: hangs: no answer to {name} in {timeout:g} s{self._stderr.told()}")

    async def _why(self) -> str:
        """What is known of an end: the last of stderr comes a moment later."""
        await asyncio.sleep(0.05)
        problem = f": {self._problem}" if self._problem and "CancelledError" not in self._problem else ""
        return problem + self._stderr.told()

    def abandon(self) -> None:
        """Stop the server without waiting for it."""
        self._gone()
        if self._task is not None and self._peer is None:
            self._task.cancel()

    async def close(self) -> None:
        """Stop the server and wait until it is gone, at most `CLOSE_S`."""
        self.abandon()
        if self._task is not None and not self.closed:
            await asyncio.wait({self._task}, timeout=CLOSE_S)
            if not self._task.done():
                self._task.cancel()
                await asyncio.wait({self._task}, timeout=1.0)


class Stderr:
    """The end of what a command writes to stderr, without a file that grows."""

    def __init__(self) -> None:
        self._read = -1
        self._kept: deque[bytes] = deque(maxlen=4)
        self._file: Any = None

    def file(self) -> Any:
        """Something with a file descriptor that a process may write to."""
        self._read, write = os.pipe()
        os.set_blocking(self._read, False)
        self._file = os.fdopen(write, "w")
        asyncio.get_running_loop().add_reader(self._read, self._take)
        return self._file

    def _take(self) -> None:
        try:
            part = os.read(self._read, 4096)
        except BlockingIOError:
            return
        if part:
            self._kept.append(part)
        else:
            self._forget()

    def told(self) -> str:
        lines = b"".join(self._kept).decode(errors="replace").strip().splitlines()
        return f"; it wrote: {' | '.join(lines[-3:])[-500:]}" if lines else ""

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        for _ in range(16):  # what is left of it
            if self._read >= 0:
                self._take()
        self._forget()

    def _forget(self) -> None:
        if self._read >= 0:
            asyncio.get_running_loop().remove_reader(self._read)
            os.close(self._read)
            self._read = -1


async def _close_all() -> None:
    await asyncio.gather(*(connection.close() for connection in list(_open)), return_exceptions=True)


@atexit.register
def _at_exit() -> None:
    if not all(connection.closed for connection in _open):
        with suppress(Exception):
            loop.start(_close_all()).result(CLOSE_S + 2)
