"""New weights for one server: pause, exchange, continue.

`retract` puts running requests back into the queue, and their caches are computed anew under the new weights;
`in_place` keeps the caches, which are then partly of the old weights; `abort` ends them, and the engine continues each
from where it came to. A server that does not tell which weights sampled which token is always paused by `abort`: no
request of it ever spans two versions.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

from agentgym.engines.sglang.broadcast import Broadcast
from agentgym.engines.sglang.client import Missing, ServerClient
from agentgym.engines.sglang.facts import ServerFacts
from agentgym.errors import EngineFault, ModelError
from agentgym.weights import WeightUpdate

PauseMode = Literal["retract", "in_place", "abort"]


class Refit:
    """Carries weights to one server, whichever way an update says."""

    def __init__(self, client: ServerClient, facts: ServerFacts, mode: PauseMode):
        self._client, self._facts = client, facts
        self._mode: PauseMode = mode if facts.spans else "abort"
        self._broadcast = Broadcast(client, facts)
        self.seconds = 0.0
        """How long the last pause was."""

    async def carry(self, update: WeightUpdate, label: str) -> None:
        """Exchange the weights; the server is to call them `label`. Raises `EngineFault` where it refuses or is away;
        generation goes on in any case."""
        async with self.paused():
            await self._exchange(update, label)

    async def _exchange(self, update: WeightUpdate, label: str) -> None:
        flush = {"flush_cache": self._mode != "in_place", "weight_version": label}
        if update.path is not None:
            await self._post("update_weights_from_disk", {"model_path": update.path, **flush})
        elif update.sender is not None:
            async with self._session():
                await self._broadcast.receive(update.sender, update.version, flush)
        elif update.handles:
            async with self._session():
                await self._from_handles(update, flush)
        else:
            raise ModelError("weight update: give a path, a sender or handles")

    async def _from_handles(self, update: WeightUpdate, flush: dict[str, Any]) -> None:
        if self._facts.on_cpu:
            raise ModelError(
                "engine.sync = 'tensor' shares a GPU's memory: a server on the CPU cannot take it; use disk"
            )
        for i, handle in enumerate(update.handles):
            last = i == len(update.handles) - 1
            body = {"serialized_named_tensors": [handle] * self._facts.devices, **(flush if last else KEEP)}
            await self._post("update_weights_from_tensor", body)

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """No token is sampled inside."""
        began = time.perf_counter()
        await self._client.post("pause_generation", {"mode": self._mode})
        try:
            yield
        except BaseException:
            with contextlib.suppress(EngineFault):  # what went wrong first is what is told
                await asyncio.shield(self._client.post("continue_generation", {}, timeout=30.0))
            raise
        await self._client.post("continue_generation", {})
        self.seconds = time.perf_counter() - began

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[None]:
        """Between begin and end, where the server has them: quantised weights are put in order at the end."""
        try:
            await self._post("begin_weight_update", {"selector": "all"})
        except Missing:
            yield
            return
        try:
            yield
        except BaseException:
            with contextlib.suppress(EngineFault):
                await asyncio.shield(self._post("end_weight_update", {}))
            raise
        await self._post("end_weight_update", {})

    async def _post(self, path: str, body: dict[str, Any]) -> None:
        answer = await self._client.post(path, body)
        if isinstance(answer, dict) and answer.get("success") is False:
            raise EngineFault(f"{self._client.name}: /{path}: {answer.get('message', 'refused')}")

    def forget(self) -> None:
        """The server is another process now: what was agreed with the former is void."""
        self._broadcast.forget()

    async def aclose(self) -> None:
        await self._broadcast.aclose()


KEEP = {"flush_cache": False}
"""Of all but the last part of an update."""
