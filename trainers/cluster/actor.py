"""The rollout worker as a Ray actor. It plays in a process of its own, which the actor stands for in the cluster."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from agentgym.rollout.situation import Situation
from agentgym.rollout.worker import WorkerFailed
from agentgym.trainers.cluster.baggage import Baggage
from agentgym.trainers.cluster.child import Child
from agentgym.trainers.cluster.hosted import Links
from agentgym.types import Group, GroupRequest


class RolloutActor:
    """Made by Ray wherever there is room, and made again where its process or machine is lost."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="agentgym-worker-")
        self._child: Child | None = None
        self._where = ""
        self._starting = asyncio.Lock()  # a driver that was cut off for a moment asks again

    async def start(self, baggage: Baggage, links: Links | None, version: int, encoded: Any) -> str:
        """Build the worker, with the weights of now where there are any, and say where it is. Then it serves.

        links: to the engine replicas, where it has no engine of its own."""
        async with self._starting:
            if self._child is None:
                self._child = Child(links)
            if not self._where:
                spec = baggage.unpack(Path(self._folder.name))
                told = replace(links, actors=[None] * len(links.actors)) if links is not None else None
                self._where = await self._child.call("start", spec, told, self._folder.name)
        if encoded is not None:
            await self.update(version, encoded)
        return self._where

    async def play(self, request: GroupRequest) -> Group | WorkerFailed:
        group: Group | WorkerFailed = await self._there.call("play", request)
        return group

    async def update(self, version: int, encoded: Any) -> int:
        taken: int = await self._there.call("update", version, encoded)
        return taken

    async def avoid(self, replicas: Collection[int]) -> None:
        """These are given new weights: what can be asked of others is."""
        await self._there.call("avoid", replicas)

    async def stats(self) -> dict[str, float]:
        counters: dict[str, float] = await self._there.call("stats")
        return counters

    async def situation(self) -> Situation | None:
        """What it is at, also where something holds up its loop; no answer comes where all its threads stand still."""
        told: Situation | None = await self._there.call("situation")
        return told

    async def close(self) -> None:
        if self._child is not None:
            await self._child.close()
        self._folder.cleanup()

    @property
    def _there(self) -> Child:
        assert self._child is not None, "it is started first"
        return self._child
