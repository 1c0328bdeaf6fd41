"""Whoever holds one server for others: starts it, brings it the weights of the day, starts it anew where it died.

The others talk to the server itself, at the `Place` that is told here; one of them that got no answer says so by asking
for the place again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Protocol

from agentgym.engines.sglang.engine import SGLangEngine
from agentgym.engines.sglang.facts import ServerFacts
from agentgym.errors import EngineFault, EngineGone, WeightMismatch
from agentgym.weights import WeightUpdate

DYING_SECONDS = 0.2
"""Between the end of its connections and that of its process."""
WATCH_SECONDS = 0.5
"""Between looks whether the server's process is there."""
ANSWER_SECONDS = 30.0
"""That a server which somebody got no answer from has for one token."""

Connect = Callable[[str], SGLangEngine]
"""URL -> the engine that talks to the server there; raises `EngineFault`."""


class Startable(Protocol):
    """A server that can be started, again and again; blocking calls."""

    def start(self) -> str:
        """End what is left of it, start it, wait until it answers; its URL. Raises `EngineFault`."""
        ...

    @property
    def alive(self) -> bool: ...

    @property
    def pid(self) -> int: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is to be found. `life` names this start of it; `version` is that of the weights it was started
    with, where `facts.label` still says so."""

    url: str
    life: str
    version: int
    facts: ServerFacts
    pid: int


class ServerHost:
    """One server and what it is to run. All methods belong to one event loop.

    server: what can be started; connect: how to talk to it; version: of the weights that it starts with; patience:
    seconds for one token, where somebody got no answer; pause: between attempts to bring it back, which grows.
    """

    def __init__(
        self,
        server: Startable,
        connect: Connect,
        *,
        version: int = 0,
        patience: float = ANSWER_SECONDS,
        pause: float = 1.0,
    ):
        self._server, self._connect, self._first = server, connect, version
        self._patience, self._pause = patience, pause
        self._lock = asyncio.Lock()  # held by whoever changes the server or its weights
        self._serves = asyncio.Event()
        self._may_hold = asyncio.Event()  # memory of its GPU, which may be another's turn
        self._may_hold.set()
        self._released = ""  # the life that has given its memory back
        self._latest: WeightUpdate | None = None
        self._engine: SGLangEngine | None = None
        self._place: Place | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self.reason = ""
        """Why it does not serve, as far as that is known."""
        self.deaths: Counter[str] = Counter()
        """How often it was away: `died`, or `silent` (it took requests and answered none)."""

    @property
    def serves(self) -> bool:
        return self._serves.is_set()

    @property
    def version(self) -> int:
        """Of the weights it runs now."""
        return self._engine.version if self._engine is not None else self._first

    @property
    def serving_at(self) -> Place | None:
        return self._place if self.serves else None

    async def start(self, update: WeightUpdate | None = None) -> Place:
        """Bring it up for the first time, with these weights. Raises `EngineFault`, `UserError`; then it is closed."""
        self._remember(update)
        try:
            await self._bring_up()
        except BaseException:
            await self.aclose()
            raise
        self._spawn(self._watch())
        return self._told()

    async def update(self, update: WeightUpdate) -> bool:
        """Bring it new weights; False where it is away: it gets them before it serves again. So does one that dies over
        them, however it shows.

        Raises what says that it does not run what it was sent."""
        self._remember(update)
        if not self.serves:
            return False
        async with self._lock:
            if not self.serves or self._latest is not update:
                return False
            assert self._engine is not None
            try:
                await self._engine.update_weights(update)
            except WeightMismatch:
                raise
            except EngineFault as e:
                if not isinstance(e, EngineGone) and await self._answers():
                    raise
                await self._gave_no_answer(str(e))
                return False
            self._forget_first()
        return True

    def rest(self) -> None:
        """Hold no memory from the first on: what is to be started waits for `resume_memory`."""
        self._may_hold.clear()

    async def release_memory(self) -> None:
        """Give the GPU back until `resume_memory`; a server that dies meanwhile is started after it. Nothing may be
        played. Raises `EngineFault` where it still holds its memory."""
        self.rest()
        async with self._lock:
            if not self.serves:
                return
            assert self._engine is not None
            try:
                await self._engine.release_memory()
            except EngineGone as e:
                if self._server.alive:
                    raise
                self._lost("died", str(e))  # and its memory is free
            else:
                self._released = self._told().life

    async def resume_memory(self) -> None:
        """Take it again; new weights have to follow."""
        self._may_hold.set()
        async with self._lock:
            released, self._released = self._released, ""
            if not self._lives(released):  # one that was started since has its memory
                return
            assert self._engine is not None
            try:
                await self._engine.resume_memory()
            except EngineGone as e:
                await self._gave_no_answer(str(e))

    async def place(self, seen: str = "") -> Place:
        """Where it serves, as soon as it does. seen: the life in which the caller got no answer: it is looked into."""
        if seen and self._lives(seen) and self._may_hold.is_set():
            async with self._lock:  # a server whose weights are being exchanged samples nothing
                if self._lives(seen) and not await self._answers():
                    await self._gave_no_answer("it gave no answer")
        await self._serves.wait()
        return self._told()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._serves.clear()
        for task in self._tasks:
            task.cancel()
        if self._engine is not None:
            await self._engine.aclose()
        await asyncio.to_thread(self._server.close)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- parts ----

    def _remember(self, update: WeightUpdate | None) -> None:
        if update is not None and (self._latest is None or update.version >= self._latest.version):
            self._latest = update

    def _lives(self, life: str) -> bool:
        return self.serving_at is not None and self.serving_at.life == life

    def _told(self) -> Place:
        assert self._place is not None
        return self._place

    def _forget_first(self) -> None:
        """It runs weights that it was sent: what it called those it was started with means nothing any more."""
        place = self._told()
        self._place = replace(place, facts=replace(place.facts, label=""))

    async def _bring_up(self) -> None:
        async with self._allowed():
            url = await asyncio.to_thread(self._server.start)
            engine = await asyncio.to_thread(self._connect, url)
            self._engine = engine
            self._place = Place(url, uuid.uuid4().hex, self._first, engine.facts, self._server.pid)
            update = None
            while update is not self._latest:  # another may have come meanwhile
                update = self._latest
                assert update is not None
                await engine.update_weights(update)
                self._forget_first()
            self.reason = ""
            self._serves.set()

    @contextlib.asynccontextmanager
    async def _allowed(self) -> AsyncIterator[None]:
        """The lock, at a time when memory may be held."""
        while True:
            await self._may_hold.wait()
            async with self._lock:
                if self._may_hold.is_set():
                    yield
                    return

    async def _gave_no_answer(self, reason: str) -> None:
        """One that was killed closes its sockets a moment before its process is told to be dead."""
        life, until = self._told().life, time.monotonic() + DYING_SECONDS
        while self._server.alive and time.monotonic() < until:
            await asyncio.sleep(0.01)
        if self._lives(life):
            self._lost("silent" if self._server.alive else "died", reason)

    def _lost(self, kind: str, reason: str) -> None:
        if not self.serves or self._closed:
            return
        self._serves.clear()
        self.deaths[kind] += 1
        self.reason = reason
        self._spawn(self._bring_back())

    async def _bring_back(self) -> None:
        pause = self._pause
        while not self._closed:
            try:
                await self._bring_up()
            except EngineFault as e:  # also weights that are not those meant: it does not serve
                self.reason = str(e)
                await asyncio.sleep(pause)
                pause = min(2 * pause, 30.0)
            else:
                return

    async def _watch(self) -> None:
        while not self._closed:
            await asyncio.sleep(WATCH_SECONDS)
            if self.serves and not self._server.alive:
                self._lost("died", "its process ended")

    async def _answers(self) -> bool:
        assert self._engine is not None
        return self._server.alive and await self._engine.healthy(self._patience)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
