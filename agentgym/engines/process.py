"""An engine in a process of its own: the same contract, spoken over a pipe.

Decoding a small model is bound by Python, so that overlap with anything else needs a process, not a thread. The process
ignores Ctrl-C and does not outlive its parent. Weights cross by shared memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from agentgym import errors
from agentgym.engines import child
from agentgym.engines.messages import (
    Answer,
    Cancel,
    Close,
    Counters,
    Generate,
    Refused,
    Release,
    Started,
    Update,
)
from agentgym.errors import EngineFault
from agentgym.protocols import Engine
from agentgym.types import Completion, SamplingParams
from agentgym.weights import WeightUpdate

_CLOSE_SECONDS = 5.0


class ProcessEngine:
    """Implements `protocols.Engine` by an engine that `build` (picklable) makes in a spawned process.

    Returns when that engine is ready; raises what building it raised, by its class in `agentgym.errors`. A process
    that dies fails its pending requests, and every later one, with `EngineFault`.
    """

    def __init__(self, build: Callable[[], Engine]):
        context = multiprocessing.get_context("spawn")
        self._channel, theirs = context.Pipe()
        self._process = context.Process(target=child.main, args=(theirs, build, os.getpid()), daemon=True)
        with _interrupts_held():
            self._process.start()
        theirs.close()
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._ids = itertools.count()
        self._lock = threading.Lock()
        self._outbox: list[Any] = []
        self._stats: dict[str, float] = {}
        self._fault: EngineFault | None = None
        self._version = self._await_start()
        self._reader = threading.Thread(target=self._read, daemon=True, name="engine-reader")
        self._reader.start()

    @classmethod
    def from_pretrained(cls, path: str, **options: Any) -> ProcessEngine:
        """A `LocalEngine` of a Hugging Face folder or id; options as there."""
        return cls(functools.partial(_build_local, path, options))

    @property
    def version(self) -> int:
        return self._version

    @property
    def stats(self) -> dict[str, float]:
        """The engine's counters, as of its last answer."""
        return dict(self._stats)

    @property
    def pid(self) -> int | None:
        """Process id of the engine."""
        return self._process.pid

    async def generate(self, ids: Sequence[int], params: SamplingParams, *, session: str | None = None) -> Completion:
        number = next(self._ids)
        completion: Completion = await self._ask(Generate(number, np.asarray(ids, np.int32), params, session))
        return completion

    async def release(self, session: str) -> None:
        if self._fault is None:
            self._post(Release(session))

    async def update_weights(self, update: WeightUpdate) -> None:
        """Tensors in a plain dict are copied into shared memory; any other mapping is pickled as it is."""
        segment = mapped = None
        if isinstance(update.tensors, dict):
            from agentgym.engines.segment import Segment  # torch is not needed before

            segment = Segment(update.tensors)
            update, mapped = WeightUpdate(update.version, update.kind), segment.mapped()
        try:
            self._version = await self._ask(Update(next(self._ids), update, mapped))
        finally:
            if segment is not None:
                segment.unlink()

    async def aclose(self) -> None:
        """Fail what is pending, ask the process to end, and make it."""
        if self._fault is None:
            self._give_up(EngineFault("the engine was closed"))
            with contextlib.suppress(OSError), self._lock:
                self._channel.send([Close()])
        await asyncio.get_running_loop().run_in_executor(None, self._reap)

    def _reap(self) -> None:
        self._process.join(_CLOSE_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._reader.join(_CLOSE_SECONDS)
        self._channel.close()

    async def _ask(self, message: Generate | Update) -> Any:
        if self._fault is not None:
            raise EngineFault(str(self._fault))
        future = asyncio.get_running_loop().create_future()
        self._pending[message.id] = future
        self._post(message)
        try:
            return await future
        except asyncio.CancelledError:
            if self._fault is None:
                self._post(Cancel(message.id))
            raise
        finally:
            self._pending.pop(message.id, None)

    def _post(self, message: Any) -> None:
        """Send with everything else of this turn of the loop."""
        if not self._outbox:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outbox.append(message)

    def _flush(self) -> None:
        outbox, self._outbox = self._outbox, []
        try:
            with self._lock:
                self._channel.send(outbox)
        except OSError:
            pass  # the reader sees the end of the pipe too, and knows what to say

    def _await_start(self) -> int:
        try:
            first = self._channel.recv()[0]
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            raise EngineFault(f"the engine process ended with exit code {code} before it was ready") from None
        if isinstance(first, Started):
            self._stats = dict(first.stats)
            return first.version
        self._process.join()
        raise _error(first)

    def _read(self) -> None:
        """Runs in a thread: the only reader of the pipe."""
        while True:
            try:
                messages = self._channel.recv()
            except (EOFError, OSError):
                break
            self._resolve(messages)
        self._process.join(_CLOSE_SECONDS)
        self._give_up(EngineFault(f"the engine process ended with exit code {self._process.exitcode}"))

    def _resolve(self, messages: list[Any]) -> None:
        loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
        for message in messages:
            if isinstance(message, Counters):
                self._stats = dict(message.stats)
            elif isinstance(message, Answer):
                future = self._pending.get(message.id)
                if future is not None:
                    loops.setdefault(future.get_loop(), []).append((future, message.value))
        for loop, pairs in loops.items():
            with contextlib.suppress(RuntimeError):  # that loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_settle, pairs)

    def _give_up(self, fault: EngineFault) -> None:
        self._fault = self._fault or fault
        for future in list(self._pending.values()):
            with contextlib.suppress(RuntimeError):
                future.get_loop().call_soon_threadsafe(_settle, [(future, Refused("EngineFault", str(fault)))])


def _settle(pairs: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, value in pairs:
        if future.done():
            continue
        if isinstance(value, Refused):
            future.set_exception(_error(value))
        else:
            future.set_result(value)


def _error(refused: Refused) -> Exception:
    kind = getattr(errors, refused.kind, EngineFault)
    error: Exception = kind(refused.text)
    return error


def _build_local(path: str, options: dict[str, Any]) -> Engine:
    from agentgym.engines.local import LocalEngine

    return LocalEngine.from_pretrained(path, **options)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """A process started inside ignores Ctrl-C from its first instruction on (the disposition is inherited)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
