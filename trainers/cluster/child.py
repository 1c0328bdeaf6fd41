"""The actor's handle on the process in which its worker lives (`service`)."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing as mp
import os
import signal
import sys
import threading
import traceback
from typing import Any

from agentgym.errors import EngineGone
from agentgym.trainers.cluster.hosted import Links
from agentgym.trainers.cluster.service import serve, settle
from agentgym.trainers.outbox import Outbox
from agentgym.trainers.rollouts import RolloutError

CLOSING = 5.0
"""Seconds that it has to end after it was closed."""


class Child:
    """Starts the process when made; it dies with the actor, and the actor with it: Ray then makes both again. All
    methods belong to the actor's event loop."""

    def __init__(self, links: Links | None):
        self._links = links
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        context = mp.get_context("spawn")
        down, self._down = context.Pipe(duplex=False)
        self._up, up = context.Pipe(duplex=False)
        self._process = context.Process(target=serve, args=(down, up), name="rollout-worker")
        self._process.start()
        down.close()
        up.close()
        self._outbox = Outbox(self._down)
        threading.Thread(target=self._read, daemon=True, name="rollout-worker-pipe").start()

    async def call(self, name: str, *arguments: Any) -> Any:
        """What the process answers. Raises what it raised, `RolloutError` for what is no user's to mend."""
        number = next(self._numbers)
        future = self._waiting[number] = self._loop.create_future()
        self._outbox.put("call", (number, name, arguments))
        try:
            return await future
        finally:
            self._waiting.pop(number, None)

    async def close(self) -> None:
        self._closing = True
        await self.call("close")
        await asyncio.to_thread(self._process.join, CLOSING)
        if self._process.is_alive():
            self._process.kill()

    def _read(self) -> None:
        while True:
            try:
                kind, payload = self._up.recv()
            except (EOFError, OSError):
                self._ended()
                return
            except Exception:  # it cannot be unpickled: all of it was taken
                kind, payload = "failed", traceback.format_exc()
            self._loop.call_soon_threadsafe(self._take, kind, payload)

    def _take(self, kind: str, payload: Any) -> None:
        if kind == "result":
            settle(self._waiting.pop(payload[0], None), payload[1])
        elif kind == "ask":
            task = self._loop.create_task(self._ask(*payload))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif kind == "failed":  # something could not be sent or read, and nobody knows for whom it was
            for future in self._waiting.values():
                settle(future, RolloutError(payload))

    async def _ask(self, number: int, index: int, seen: str) -> None:
        """Where a replica's server is."""
        from ray.exceptions import RayError

        assert self._links is not None
        try:
            answer: Any = await self._links.actors[index].place.remote(seen)
        except RayError as e:
            answer = EngineGone(f"engine replica {index} is away ({type(e).__name__})")
        self._outbox.put("answer", (number, answer))

    def _ended(self) -> None:
        """The process is gone. An actor without it is of no use: Ray makes another, which whoever waits hears of."""
        if self._closing:
            return
        self._process.join(CLOSING)
        code = self._process.exitcode or 0
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"died (exit code {code})"
        memory = " (was there enough memory?)" if code == -signal.SIGKILL else ""
        print(f"the rollout worker (process {self._process.pid}) {how}{memory}", file=sys.stderr, flush=True)
        os._exit(1)
