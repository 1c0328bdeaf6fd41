"""A pool: lends at most so many sandboxes at once, first come first served, and takes back what is forgotten."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import Any, Self

from agentgym.errors import SandboxFault
from agentgym.execution import Capabilities, ExecResult, SandboxSpec
from agentgym.protocols import Sandbox, SandboxBackend


@dataclass(slots=True)
class PoolStats:
    """Counts since the pool was made; `lent` and `waiting` are of now."""

    lent: int = 0
    waiting: int = 0
    made: int = 0
    reclaimed: int = 0
    most: int = 0
    """Lent at once, at most."""
    waited_s: float = 0.0


class Pool:
    """In front of a backend, and itself one: `create` waits for its turn where `size` sandboxes are lent.

    A sandbox goes back by `close`, and is discarded: no borrower finds what another left. One that has not been used
    for `lease` seconds is taken back; whoever still holds it is told so by `SandboxFault`. `max_waiting` refuses what
    would wait behind so many others (None: no end to the queue).
    """

    def __init__(
        self, backend: SandboxBackend, size: int, *, lease: float = 600.0, max_waiting: int | None = None
    ) -> None:
        if size < 1:
            raise ValueError(f"pool size = {size!r}: must be 1 or more")
        if not lease > 0:
            raise ValueError(f"pool lease = {lease!r}: must be above 0 seconds")
        self.backend = backend
        self.size = size
        self.lease = lease
        self.max_waiting = max_waiting
        self.stats = PoolStats()
        self._slots = asyncio.Semaphore(size)  # first come, first served
        self._lent: set[Lent] = set()
        self._watching: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def capabilities(self) -> Capabilities:
        return self.backend.capabilities

    async def create(self, spec: SandboxSpec) -> Lent:
        """Wait for a place, then make a sandbox."""
        self._check_open()
        if self.max_waiting is not None and self._slots.locked() and self.stats.waiting >= self.max_waiting:
            raise SandboxFault(f"all {self.size} sandboxes are lent and {self.stats.waiting} requests wait already")
        began = time.monotonic()
        self.stats.waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self.stats.waiting -= 1
            self.stats.waited_s += time.monotonic() - began
        try:
            self._check_open()
            lent = Lent(self, await self.backend.create(spec))
        except BaseException:
            self._slots.release()
            raise
        if self._closed:
            await lent.sandbox.close()
            self._slots.release()
            self._check_open()
        self._lent.add(lent)
        self.stats.made += 1
        self.stats.lent = len(self._lent)
        self.stats.most = max(self.stats.most, self.stats.lent)
        if self._watching is None or self._watching.done():
            self._watching = asyncio.get_running_loop().create_task(self._reclaim())
        return lent

    async def give_back(self, lent: Lent) -> None:
        """Discard it and let the next one in; again does nothing."""
        if lent not in self._lent:
            return
        self._lent.discard(lent)
        try:
            await asyncio.shield(lent.sandbox.close())
        finally:
            self.stats.lent = len(self._lent)
            self._slots.release()

    async def _reclaim(self) -> None:
        while self._lent:
            idle = {lent: time.monotonic() - lent.used for lent in self._lent if not lent.busy}
            for lent in [lent for lent, seconds in idle.items() if seconds >= self.lease]:
                self.stats.reclaimed += 1
                lent.reclaimed = True
                with contextlib.suppress(SandboxFault):
                    await self.give_back(lent)
            await asyncio.sleep(max(0.01, min([self.lease, *(self.lease - s for s in idle.values())])))

    async def aclose(self) -> None:
        """Take back everything and end the backend; whoever waits is told."""
        self._closed = True
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            self._watching = None
        for lent in list(self._lent):
            await self.give_back(lent)
        await self.backend.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _check_open(self) -> None:
        if self._closed:
            raise SandboxFault("the pool is closed")


@dataclass(slots=True, eq=False)
class Lent:
    """A sandbox on loan; `close` gives it back."""

    pool: Pool
    sandbox: Sandbox
    used: float = field(default_factory=time.monotonic)
    busy: int = 0
    """Calls under way."""
    reclaimed: bool = False

    async def exec(self, code: str, *, timeout: float | None = None) -> ExecResult:
        with self._in_use():
            return await self.sandbox.exec(code, timeout=timeout)

    async def shell(self, command: str, *, timeout: float | None = None) -> ExecResult:
        with self._in_use():
            return await self.sandbox.shell(command, timeout=timeout)

    async def terminal(self, command: str, *, timeout: float | None = None) -> ExecResult:
        with self._in_use():
            return await self.sandbox.terminal(command, timeout=timeout)

    async def write_file(self, path: str, data: bytes) -> None:
        with self._in_use():
            await self.sandbox.write_file(path, data)

    async def read_file(self, path: str, max_bytes: int = 1 << 20) -> bytes:
        with self._in_use():
            return await self.sandbox.read_file(path, max_bytes)

    async def snapshot(self) -> bytes:
        with self._in_use():
            return await self.sandbox.snapshot()

    async def restore(self, snapshot: bytes) -> None:
        with self._in_use():
            await self.sandbox.restore(snapshot)

    async def close(self) -> None:
        await self.pool.give_back(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @contextlib.contextmanager
    def _in_use(self) -> Any:
        if self.reclaimed:
            raise SandboxFault(f"the sandbox was taken back: it had not been used for {self.pool.lease:g} s")
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1
            self.used = time.monotonic()
