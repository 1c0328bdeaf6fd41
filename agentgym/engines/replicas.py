"""Several engines as one: requests routed by what each has cached, around those that are away, updated in turn.

A session stays with its replica. A new one goes where others with the same beginning went (a group's episodes share
their prompt), unless that one has clearly more to do. What a replica that is away could not answer is asked of another
from its beginning; the one away is brought back, gets the weights of the day, and only then serves again.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from agentgym.engines.load import Load, load_of
from agentgym.errors import EngineFault, EngineGone, WeightMismatch
from agentgym.protocols import Engine
from agentgym.types import Completion, SamplingParams
from agentgym.weights import WeightUpdate

PREFIX = 64
"""Tokens of a prompt's beginning that decide where a new session goes."""
SLACK = 8
"""Requests that a replica may have more than the least busy one and still be preferred for its cache."""
REMEMBERED = 100_000
"""Sessions whose replica is kept in mind."""
PATIENCE = 900.0
"""Seconds that a request waits where no replica serves: as long as a server takes to start."""

Order = Literal["rolling", "together"]

Revive = Callable[[int], Awaitable[None]]
"""Makes the i-th engine answer again (starts its server anew, ...); raises `EngineFault` where it cannot."""


@dataclass(slots=True, eq=False)
class Replica:
    index: int
    engine: Engine
    load: int = 0
    serves: bool = True
    updating: bool = False
    deaths: int = 0
    reason: str = ""


class ReplicatedEngine:
    """Implements `protocols.Engine` over `engines`, which it owns.

    revive: what brings one back that was away; closed: called when all engines are closed; pause: seconds between
    attempts to bring one back; serving: whether they serve from the start, or are to be brought there by `revive`;
    order: of updates.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        *,
        revive: Revive | None = None,
        closed: Callable[[], None] = lambda: None,
        patience: float = PATIENCE,
        pause: float = 1.0,
        serving: bool = True,
        order: Order = "rolling",
    ):
        self.replicas = [Replica(i, engine, serves=serving) for i, engine in enumerate(engines)]
        self._order = order
        self._revive, self._on_close, self._patience, self._pause = revive, closed, patience, pause
        self._sessions: OrderedDict[str, Replica] = OrderedDict()
        self._latest: WeightUpdate | None = None
        self._version = self.replicas[0].engine.version
        self._revivals: dict[int, asyncio.Task[None]] = {}
        self._closed = False

    @property
    def version(self) -> int:
        """That of the last update which all serving replicas have."""
        return self._version

    @property
    def stats(self) -> dict[str, float]:
        """The engines' counters, added up; and how many serve, and how often one was away."""
        total: dict[str, float] = {}
        for replica in self.replicas:
            for key, value in getattr(replica.engine, "stats", {}).items():
                total[key] = total.get(key, 0.0) + value
        serving = sum(replica.serves and not replica.updating for replica in self.replicas)
        return {**total, "serving": serving, "deaths": sum(replica.deaths for replica in self.replicas)}

    async def load(self) -> Load:
        """That of the replicas that serve: their queues added up, the fullest cache."""
        loads = await asyncio.gather(*(load_of(replica.engine) for replica in self.replicas if replica.serves))
        return Load(
            sum(load.queued for load in loads),
            max((load.cache for load in loads), default=0.0),
            sum(load.lost for load in loads),
        )

    async def generate(self, ids: Sequence[int], params: SamplingParams, *, session: str | None = None) -> Completion:
        deadline = time.monotonic() + self._patience
        while True:
            replica = await self._choose(ids, session, deadline)
            replica.load += 1
            try:
                return await replica.engine.generate(ids, params, session=session)
            except EngineGone as e:
                if self._closed:
                    raise
                self._lost(replica, e)
            finally:
                replica.load -= 1

    async def release(self, session: str) -> None:
        replica = self._sessions.pop(session, None)
        if replica is not None:
            await replica.engine.release(session)

    async def update_weights(self, update: WeightUpdate) -> None:
        """`rolling`: one replica after the other, the rest serving on; `together`: all at once, which is over sooner.
        One that is away gets them when it comes back; raises `EngineGone` where none is left, and what an engine raises
        that does not run what it was sent."""
        self._latest = update
        serving = [replica for replica in self.replicas if replica.serves]
        if self._order == "rolling":
            taken = [await self._update(replica, update) for replica in serving]
        else:
            taken = await _all(self._update(replica, update) for replica in serving)
        if not any(taken):
            await self._someone(time.monotonic() + self._patience)
        self._version = update.version

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        here = asyncio.get_running_loop()
        mine = [task for task in self._revivals.values() if task.get_loop() is here]
        for task in mine:
            task.cancel()
        await asyncio.gather(*mine, return_exceptions=True)
        await asyncio.gather(*(replica.engine.aclose() for replica in self.replicas), return_exceptions=True)
        self._on_close()

    def avoid(self, indices: Collection[int]) -> None:
        """New requests go round these replicas, where there are others: somebody else brings them new weights."""
        for replica in self.replicas:
            replica.updating = replica.index in indices

    # ---- where a request goes ----

    async def _choose(self, ids: Sequence[int], session: str | None, deadline: float) -> Replica:
        if not any(replica.serves for replica in self.replicas):
            await self._someone(deadline)
        serving = [replica for replica in self.replicas if replica.serves]
        free = [replica for replica in serving if not replica.updating] or serving
        least = min(replica.load for replica in free)
        chosen = self._sessions.get(session) if session is not None else None
        if chosen not in free or (chosen is not None and chosen.load > 2 * (least + SLACK)):
            chosen = _preferred(free, ids, least)
        assert chosen is not None
        if session is not None:
            self._sessions[session] = chosen
            self._sessions.move_to_end(session)
            while len(self._sessions) > REMEMBERED:
                self._sessions.popitem(last=False)
        return chosen

    async def _someone(self, deadline: float) -> None:
        """Wait until a replica serves."""
        while not any(replica.serves for replica in self.replicas):
            if self._closed:
                raise EngineFault("the engine is closed")
            if time.monotonic() > deadline or self._revive is None:
                told = "; ".join(replica.reason for replica in self.replicas if replica.reason)
                raise EngineGone(f"none of {len(self.replicas)} engine replicas is left: {told}")
            self._see_to_revivals()
            await asyncio.sleep(0.05)

    # ---- weights ----

    async def _update(self, replica: Replica, update: WeightUpdate) -> bool:
        replica.updating = True
        try:
            await replica.engine.update_weights(update)
        except EngineFault as e:
            if not isinstance(e, EngineGone) and not await _dies(replica.engine, e):
                raise
            self._lost(replica, e)
            return False
        finally:
            replica.updating = False
        return True

    # ---- those that are away ----

    def _lost(self, replica: Replica, fault: EngineFault) -> None:
        if replica.serves:
            replica.serves = False
            replica.deaths += 1
            replica.reason = str(fault)
        self._see_to_revivals()

    def _see_to_revivals(self) -> None:
        """A task of the running loop for each that is away."""
        loop = asyncio.get_running_loop()
        for replica in self.replicas:
            task = self._revivals.get(replica.index)
            there = task is not None and not task.done() and task.get_loop() is loop
            if not replica.serves and not there and self._revive is not None and not self._closed:
                name = f"revive-{replica.index}"
                self._revivals[replica.index] = loop.create_task(self._bring_back(replica, self._revive), name=name)

    async def _bring_back(self, replica: Replica, revive: Revive) -> None:
        """Until it answers and runs the weights of the day."""
        pause = self._pause
        while not self._closed:
            try:
                await revive(replica.index)
                update = None
                while update is not self._latest:  # another may have come meanwhile
                    update = self._latest
                    assert update is not None
                    await replica.engine.update_weights(update)
            except EngineFault as e:  # also weights that are not those meant: it does not serve
                replica.reason = str(e)
                await asyncio.sleep(pause)
                pause = min(2 * pause, 30.0)
                continue
            replica.serves = True
            replica.reason = ""
            return


async def _dies(engine: Engine, fault: EngineFault) -> bool:
    """Whether a fault was the last of an engine, which no longer answers; one that runs other weights does answer."""
    healthy = getattr(engine, "healthy", None)
    return healthy is not None and not isinstance(fault, WeightMismatch) and not await healthy()


async def _all(updates: Iterable[Awaitable[bool]]) -> list[bool]:
    """All of them to their end; then raises what the first that failed did."""
    done = await asyncio.gather(*updates, return_exceptions=True)
    for result in done:
        if isinstance(result, BaseException):
            raise result
    return [result is True for result in done]


def _preferred(free: Sequence[Replica], ids: Sequence[int], least: int) -> Replica:
    """The one that prompts of this beginning go to, else the least busy."""
    start = np.asarray(ids[:PREFIX], np.int32).tobytes()
    # each replica draws a number for the beginning, the highest takes it: when one goes, only its own move
    home = max(free, key=lambda replica: zlib.crc32(f"{replica.index}".encode() + start))
    return home if home.load <= least + SLACK else min(free, key=lambda replica: replica.load)
