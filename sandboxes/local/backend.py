"""The local backend: sessions of one zygote, some forked ahead."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
import weakref
from collections.abc import Sequence
from typing import Any, Literal

from agentgym.errors import ConfigError, SandboxFault, SandboxUnavailable
from agentgym.execution import Capabilities, SandboxLimits, SandboxSpec
from agentgym.sandboxes.local import canary
from agentgym.sandboxes.local.cgroups import Groups
from agentgym.sandboxes.local.sandbox import LocalSandbox
from agentgym.sandboxes.local.session import Session
from agentgym.sandboxes.local.zygote import Zygote

BUILT_AT_ONCE = 8
"""Sessions under construction. The zygote makes one after the other: more would only crowd the event loop."""


def landlock(**options: Any) -> LocalBackend:
    """The backend `landlock`: `LocalBackend` with that isolation, for where only a name can be given."""
    return LocalBackend(isolation="landlock", **options)


class LocalBackend:
    """Forks sessions from a zygote; `preload` names modules that every session finds imported (numpy, sympy).

    `warm`: how many sessions of the limits last asked for are kept ready.

    `isolation`: "namespaces" (the default, and never anything less by itself), or "landlock" where namespaces are
    refused, as in a default Docker container. Landlock keeps a session from other files, processes and the network,
    but not from seeing that they are there; its disk limit is looked after every 20 ms, not held by the kernel; /work
    and /tmp are the session's own only for `write_file`, `read_file` and `workdir`, its code finds them in HOME and
    TMPDIR; /proc and /dev/shm are closed, so there is no multiprocessing. For an ordinary user it takes Linux 6.12,
    and modes, owners and times of files are not changed though it is answered that they were.

    `allow_unsafe`: no walls at all, only limits: the code may do whatever this process may. Each sandbox warns of it.

    Before anything is run, one session has to prove that the walls hold: see `canary`.
    """

    def __init__(
        self,
        *,
        preload: Sequence[str] = (),
        warm: int = 4,
        isolation: Literal["namespaces", "landlock"] = "namespaces",
        allow_unsafe: bool = False,
    ):
        if isolation not in ("namespaces", "landlock"):
            raise ConfigError(f"local sandbox isolation = {isolation!r}: must be 'namespaces' or 'landlock'")
        if allow_unsafe and isolation != "namespaces":
            raise ConfigError(f"local sandbox: give isolation={isolation!r} or allow_unsafe=True, not both")
        self._isolation: Literal["namespaces", "landlock", "none"] = "none" if allow_unsafe else isolation
        self._zygote = Zygote(preload, self._isolation)
        self._proven = allow_unsafe  # there are no walls to prove
        self._warm = warm
        self._ready: dict[SandboxLimits, list[Session]] = {}
        self._groups: Groups | None = None
        self._opened = False
        self._live: set[Session] = set()
        self._filling: asyncio.Task[None] | None = None
        self._turns: weakref.WeakKeyDictionary[Any, asyncio.Semaphore] = weakref.WeakKeyDictionary()

    @property
    def capabilities(self) -> Capabilities:
        self._open()
        return Capabilities(self._isolation, "cgroup" if self._groups is not None else "watchdog")

    async def create(self, spec: SandboxSpec) -> LocalSandbox:
        """A sandbox whose session is running; raises `SandboxUnavailable` where this machine cannot hold one."""
        _check(spec)
        if self._isolation == "none":
            warnings.warn("this sandbox has no walls: its code may do whatever this process may", stacklevel=2)
        return await LocalSandbox(self, spec).opened()

    async def session(self, spec: SandboxSpec) -> Session:
        """A fresh session, a ready one where there is one."""
        limits = spec.limits
        self._open()
        session = await self._waiting(limits) or await self._fork(limits)
        if self._warm and (self._filling is None or self._filling.done()):
            self._filling = asyncio.get_running_loop().create_task(self._fill(limits))
        return session

    async def _waiting(self, limits: SandboxLimits) -> Session | None:
        ready = self._ready.get(limits, [])
        while ready:
            session = ready.pop()
            if not session.orphaned:
                return session
            await self.discard(session)
        return None

    async def _fork(self, limits: SandboxLimits) -> Session:
        if not self._proven:
            self._proven = True
            try:
                await self._prove(limits)
            except BaseException:
                self._proven = False
                raise
        async with self._turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(BUILT_AT_ONCE)):
            session = Session(self._zygote, self._groups, limits)
            self._live.add(session)
            try:
                await session.start()
            except BaseException:
                self._live.discard(session)
                raise
        return session

    async def _prove(self, limits: SandboxLimits) -> None:
        session = await self._fork(limits)
        try:
            await canary.prove(session, self.capabilities)
        finally:
            await self.discard(session)

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
        if self._filling is not None and not self._filling.done():
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


def _check(spec: SandboxSpec) -> None:
    if spec.image or spec.dockerfile:
        raise SandboxUnavailable("the local sandbox has no images; use the docker backend")
    if spec.user not in ("", "agent"):
        raise SandboxUnavailable(f"sandbox user = {spec.user!r}: the local sandbox has none but 'agent'; use docker")
    if spec.workdir and not spec.workdir.startswith(("/work/", "/tmp/")) and spec.workdir != "/work":
        raise SandboxUnavailable(f"sandbox workdir = {spec.workdir!r}: locally it has to be under /work or /tmp")
