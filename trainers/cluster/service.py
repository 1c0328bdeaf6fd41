"""What a Ray actor's own process does for it: the same `Worker` as elsewhere, in the event loop of the main thread.

Ray gives an actor's event loop a thread beside the main one, where nothing that waits in the system can be stopped
(`overrun`). So the worker lives in a process of its own, as it does on one machine, and the actor only passes on what
it is asked: it can always answer, and it ends when this process does.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import itertools
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Collection
from typing import Any

from agentgym.engines.replicas import ReplicatedEngine
from agentgym.engines.sglang.host import Place
from agentgym.errors import AgentGymError, UserError
from agentgym.rollout.worker import Worker, WorkerFailed, WorkerSpec
from agentgym.trainers.cluster.hosted import Links, hosted_engine
from agentgym.trainers.outbox import Outbox
from agentgym.trainers.rollouts import RolloutError
from agentgym.types import Group, GroupRequest
from agentgym.weights import WeightUpdate

_PR_SET_PDEATHSIG = 1


def serve(down: Any, up: Any) -> None:
    """Entry of the process. Ctrl-C is the driver's to handle."""
    if sys.platform == "linux":  # elsewhere it notices by its pipe, unless all its threads stand still
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    outbox = Outbox(up)
    asyncio.run(_Service(outbox).run(down))
    outbox.flush()


class _Service:
    """Messages down: (`call`, number, method, its arguments) and (`answer`, number, what was asked for); up:
    (`result`, number, value or exception) and (`ask`, number, the question). All methods without a `_` can be called.
    """

    def __init__(self, up: Outbox):
        self._up = up
        self._worker: Worker | None = None
        self._engine: ReplicatedEngine | None = None
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Place]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = asyncio.Event()

    async def run(self, down: Any) -> None:
        """Until it is closed."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, args=(down, loop), daemon=True).start()
        await self._closed.wait()

    # ---- what the actor asks for ----

    async def start(self, spec: WorkerSpec, links: Links | None, folder: str) -> str:
        """Build the worker; where it is. links: to the engine replicas, where it has no engine of its own."""
        os.chdir(folder)
        if links is not None:
            self._engine = hosted_engine(spec.config, links, self._place)
        self._worker = Worker(spec, lambda group: None, self._engine)
        gc.collect()
        gc.freeze()  # as in `trainers.rollouts`
        return f"{socket.gethostname()}, process {os.getpid()}"

    async def play(self, request: GroupRequest) -> Group | WorkerFailed:
        assert self._worker is not None
        return await self._worker.answer(request)

    async def update(self, version: int, encoded: Any) -> int:
        from agentgym.trainers.cluster.tensors import decode

        assert self._worker is not None
        await self._worker.update_weights(WeightUpdate(version, "full", decode(encoded)))
        return version

    async def avoid(self, replicas: Collection[int]) -> None:
        if self._engine is not None:
            self._engine.avoid(replicas)

    async def stats(self) -> dict[str, float]:
        return self._worker.stats() if self._worker is not None else {}

    async def close(self) -> None:
        if self._worker is not None:
            await self._worker.aclose()
        self._closed.set()

    # ---- messages ----

    def _read(self, down: Any, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            try:
                kind, payload = down.recv()
            except (EOFError, OSError):
                os._exit(1)  # the actor is gone: leave no orphan, whatever is under way
            if kind == "call" and payload[1] == "situation":  # from this thread: it may be that the loop does not turn
                self._up.put("result", (payload[0], self._worker.situation() if self._worker is not None else None))
                continue
            loop.call_soon_threadsafe(self._take, kind, payload)

    def _take(self, kind: str, payload: Any) -> None:
        if kind == "answer":
            settle(self._asked.pop(payload[0], None), payload[1])
            return
        task = asyncio.get_running_loop().create_task(self._call(*payload))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(self, number: int, name: str, arguments: tuple[Any, ...]) -> None:
        try:
            result = await getattr(self, name)(*arguments)
        except UserError as e:
            result = e
        except BaseException:  # whatever it is, somebody waits for an answer
            result = RolloutError(traceback.format_exc())
        self._up.put("result", (number, result))

    async def _place(self, index: int, seen: str) -> Place:
        """The actor asks the replica's: this process is no part of the cluster."""
        number = next(self._numbers)
        self._asked[number] = asyncio.get_running_loop().create_future()
        self._up.put("ask", (number, index, seen))
        return await self._asked[number]


def settle(future: asyncio.Future[Any] | None, outcome: Any) -> None:
    """Give an answer to whoever still waits for it."""
    if future is None or future.done():
        return
    if isinstance(outcome, AgentGymError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
