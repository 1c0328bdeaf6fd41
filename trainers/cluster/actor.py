"""The rollout worker as a Ray actor: the same `Worker` as in the other processes, in an event loop of its own."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from agentgym.engines.replicas import ReplicatedEngine
from agentgym.rollout.situation import Situation
from agentgym.rollout.worker import Worker, WorkerFailed
from agentgym.trainers.cluster.baggage import Baggage
from agentgym.trainers.cluster.hosted import Links, hosted_engine
from agentgym.types import Group, GroupRequest
from agentgym.weights import WeightUpdate


class RolloutActor:
    """Made by Ray wherever there is room, and made again where its process or machine is lost."""

    def __init__(self) -> None:
        self._engine: ReplicatedEngine | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="agentgym-worker-")
        self._worker: Worker | None = None

    async def start(self, baggage: Baggage, links: Links | None, version: int, encoded: Any) -> str:
        """Build the worker, with the weights of now where there are any, and say where it is. Then it serves.

        links: to the engine replicas, where it has no engine of its own."""
        if self._worker is None:
            folder = Path(self._folder.name)
            os.chdir(folder)
            spec = baggage.unpack(folder)
            if links is not None:
                self._engine = hosted_engine(spec.config, links)
            self._worker = Worker(spec, lambda group: None, self._engine)
        if encoded is not None:
            await self.update(version, encoded)
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
        """These are given new weights: what can be asked of others is."""
        if self._engine is not None:
            self._engine.avoid(replicas)

    async def stats(self) -> dict[str, float]:
        return self._worker.stats() if self._worker is not None else {}

    async def situation(self) -> Situation | None:
        """What it is at; no answer comes where something holds up its loop."""
        return self._worker.situation() if self._worker is not None else None

    async def close(self) -> None:
        if self._worker is not None:
            await self._worker.aclose()
        self._folder.cleanup()
