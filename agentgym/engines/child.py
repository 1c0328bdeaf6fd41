"""The process behind a `ProcessEngine`: builds an engine and serves it over a pipe until its parent ends."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory
from typing import Any

from agentgym.engines.messages import (
    Answer,
    Cancel,
    Channel,
    Close,
    Counters,
    Generate,
    Mapped,
    Refused,
    Release,
    Started,
    Update,
)
from agentgym.errors import AgentGymError
from agentgym.protocols import Engine
from agentgym.weights import WeightUpdate


def main(channel: Channel, build: Callable[[], Engine], parent: int) -> None:
    """Entry of the process. Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        engine = build()
    except Exception as e:
        channel.send([refused(e)])
        return
    channel.send([Started(engine.version, counters(engine))])
    asyncio.run(_Server(channel, engine, parent).serve())


def counters(engine: Engine) -> dict[str, float]:
    return dict(getattr(engine, "stats", {}))


def refused(error: BaseException) -> Refused:
    if isinstance(error, AgentGymError):
        return Refused(type(error).__name__, str(error))
    return Refused("EngineFault", f"{type(error).__name__}: {error}")


class _Server:
    def __init__(self, channel: Channel, engine: Engine, parent: int):
        self._channel, self._engine, self._parent = channel, engine, parent
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._others: set[asyncio.Task[None]] = set()
        self._outbox: list[Any] = []
        self._closing = asyncio.Event()

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, args=(loop,), daemon=True, name="engine-pipe").start()
        await self._closing.wait()
        await self._engine.aclose()

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hand messages to the loop. A parent that is gone ends the process at once, whatever the loop is doing."""
        while True:
            try:
                while not self._channel.poll(1.0):
                    if os.getppid() != self._parent:
                        os._exit(1)
                messages = self._channel.recv()
            except (EOFError, OSError):
                os._exit(1)
            loop.call_soon_threadsafe(self._handle, messages)
            if isinstance(messages[-1], Close):
                return

    def _handle(self, messages: list[Any]) -> None:
        for message in messages:
            match message:
                case Generate():
                    task = asyncio.create_task(self._generate(message))
                    self._tasks[message.id] = task
                    task.add_done_callback(functools.partial(self._forget, message.id))
                case Cancel() if message.id in self._tasks:
                    self._tasks[message.id].cancel()
                case Release():
                    self._spawn(self._engine.release(message.session))
                case Update():
                    self._spawn(self._update(message))
                case Close():
                    self._closing.set()

    def _forget(self, number: int, _: asyncio.Task[None]) -> None:
        self._tasks.pop(number, None)

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.create_task(coroutine)
        self._others.add(task)  # the loop itself keeps only weak references
        task.add_done_callback(self._others.discard)

    async def _generate(self, request: Generate) -> None:
        try:
            ids: Any = request.ids
            completion = await self._engine.generate(ids, request.params, session=request.session)
            answer = Answer(request.id, completion)
        except Exception as e:
            answer = Answer(request.id, refused(e))
        self._send(answer)

    async def _update(self, request: Update) -> None:
        try:
            await self._take(request.update, request.segment)
            answer = Answer(request.id, self._engine.version)
        except Exception as e:
            answer = Answer(request.id, refused(e))
        self._send(answer)

    async def _take(self, update: WeightUpdate, mapped: Mapped | None) -> None:
        if mapped is None:
            await self._engine.update_weights(update)
            return
        from agentgym.engines.segment import view

        memory = SharedMemory(name=mapped.name)
        try:
            tensors = {name: view(memory, *place) for name, place in mapped.layout.items()}
            await self._engine.update_weights(WeightUpdate(update.version, update.kind, tensors))
        finally:
            tensors = {}
            with contextlib.suppress(BufferError):  # a view still lives in a traceback: unmapped with the process
                memory.close()

    def _send(self, message: Any) -> None:
        """Everything of one turn of the loop goes up as one message: a step may end many requests."""
        if not self._outbox:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outbox.append(message)

    def _flush(self) -> None:
        outbox, self._outbox = self._outbox, []
        outbox.append(Counters(counters(self._engine)))
        try:
            self._channel.send(outbox)
        except (BrokenPipeError, OSError):
            os._exit(1)
