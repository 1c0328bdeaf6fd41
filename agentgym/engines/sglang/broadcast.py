"""The engine's side of a broadcast: it stands between the learner, which sends, and the server, which receives.

The tensors never pass through this process. It asks the learner's control port for one bucket after the other and tells
the server at the same time what is coming (names, types, shapes); learner and server meet in a process group of their
own, one for each server, so that servers can be updated one after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import Mapping
from typing import Any

from agentgym.engines.sglang.client import ServerClient
from agentgym.engines.sglang.facts import ServerFacts
from agentgym.errors import EngineFault, EngineGone
from agentgym.weights import WeightSender

LINE = 1 << 26
"""Bytes of the longest message: the names and shapes of all tensors."""
ANSWER_SECONDS = 2.0
"""That a server has to say how it sees a broadcast that failed on the learner's side."""


class Broadcast:
    """Receives weights into one server."""

    def __init__(self, client: ServerClient, facts: ServerFacts):
        self._client, self._facts = client, facts
        self._group = ""

    async def receive(self, sender: WeightSender, version: int, flush: Mapping[str, Any]) -> None:
        """Bring the sender's `version` into the server. `flush`: what the last bucket's request says besides."""
        group, self._group = self._group, ""  # after a failure the next update begins with a new group
        async with _Learner(sender) as learner:
            plan = await learner.ask({"op": "plan", "version": version, "group": group})
            if not group or not plan["meets"]:  # or the learner has let it go
                await self._leave(group)
                group = f"agentgym-{uuid.uuid4().hex[:12]}"
                await self._join(learner, group)
            buckets = plan["buckets"]
            for i, bucket in enumerate(buckets):
                last = i == len(buckets) - 1
                body = {**bucket, "group_name": group, **(flush if last else {"flush_cache": False})}
                await _both(
                    learner.ask({"op": "send", "group": group, "bucket": i, "version": version}),
                    self._client.post("update_weights_from_distributed", body),
                )
            await learner.ask({"op": "done", "group": group, "version": version})
        self._group = group

    async def _join(self, learner: _Learner, group: str) -> None:
        world = 1 + self._facts.devices
        opened = await learner.ask({"op": "open", "group": group, "world_size": world, "on_cpu": self._facts.on_cpu})
        body = {
            "master_address": opened["host"],
            "master_port": opened["port"],
            "rank_offset": 1,
            "world_size": world,
            "group_name": group,
            "backend": opened["backend"],
        }
        await _both(learner.ask({"op": "joined", "group": group}), self._client.post("init_weights_update_group", body))

    def forget(self) -> None:
        self._group = ""

    async def aclose(self) -> None:
        group, self._group = self._group, ""
        await self._leave(group)

    async def _leave(self, group: str) -> None:
        if group:
            with contextlib.suppress(EngineFault):
                await self._client.post("destroy_weights_update_group", {"group_name": group}, timeout=5.0)


async def _both(learner: Any, server: Any) -> None:
    """Both sides of a collective. Where one fails, the other would wait for it: it is let go. A server that dies takes
    the learner's side with it, and its own answer, which may come a little later, says what has happened."""
    tasks = [asyncio.ensure_future(learner), asyncio.ensure_future(server)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        await asyncio.wait(tasks[1:], timeout=ANSWER_SECONDS)
        failed = next((task for task in reversed(tasks) if task.done() and task.exception()), None)
        if failed is not None:
            failed.result()
        for task in tasks:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Learner:
    """The control connection: one JSON object a line each way. Closing it ends what was begun on it."""

    def __init__(self, sender: WeightSender):
        self._sender = sender

    async def __aenter__(self) -> _Learner:
        where = f"{self._sender.host}:{self._sender.port}"
        try:
            async with asyncio.timeout(10.0):
                opened = asyncio.open_connection(self._sender.host, self._sender.port, limit=LINE)
                self._reader, self._writer = await opened
        except (OSError, TimeoutError) as e:
            raise EngineFault(f"the learner that sends the weights ({where}) cannot be reached: {e}") from None
        await self.ask({"op": "hello", "key": self._sender.key})
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        try:
            self._writer.write(json.dumps(message).encode() + b"\n")
            line = await self._reader.readline()
        except (OSError, ValueError) as e:
            raise EngineGone(f"the learner that sends the weights broke off: {e}") from None
        if not line:
            raise EngineGone("the learner that sends the weights broke off")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise EngineFault(f"the learner that sends the weights: {answer['error']}")
        return answer
