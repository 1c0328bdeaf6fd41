"""Weights by broadcast where one side goes away: who is blamed, and what is left behind."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentgym.engines.sglang.broadcast import _both
from agentgym.errors import EngineFault, EngineGone
from agentgym.trainers.weights.distributed import DistributedSync
from agentgym.types import SamplingParams

pytestmark = pytest.mark.xdist_group("the fake SGLang server")


def test_a_server_that_dies_is_blamed_also_where_the_learners_side_fails_first() -> None:
    async def learner() -> None:
        raise EngineFault("the learner that sends the weights: RuntimeError: Connection closed by peer")

    async def server() -> None:
        await asyncio.sleep(0.1)
        raise EngineGone("cannot be reached")

    with pytest.raises(EngineGone):
        asyncio.run(_both(learner(), server()))


def test_a_server_that_goes_on_waiting_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentgym.engines.sglang.broadcast.ANSWER_SECONDS", 0.05)

    async def learner() -> None:
        raise EngineFault("version 3 is gone")

    with pytest.raises(EngineFault, match="version 3 is gone"):
        asyncio.run(_both(learner(), asyncio.sleep(60)))


class Ports:
    """Of the stores in which groups meet."""

    def __init__(self, sync: DistributedSync, monkeypatch: pytest.MonkeyPatch):
        self.opened: list[int] = []
        opening = sync.open

        def noted(*told: Any) -> Any:
            answer, waiting = opening(*told)
            self.opened.append(answer["port"])
            return answer, waiting

        monkeypatch.setattr(sync, "open", noted)

    def there(self) -> list[bool]:
        return [_listens(port) for port in self.opened]


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_no_group_outlives_its_server(given: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = DistributedSync(bucket_bytes=20_000)
    ports = Ports(sync, monkeypatch)
    servers = [given.serve("fake", tmp_path / name) for name in ("stays", "dies")]

    async def play() -> None:
        stays, dies = engines = [given.served_engine(server) for server in servers]
        for version in (1, 2):
            update = sync.publish(version, dict(given.build_model("qwen3", version % 2).named_parameters()))
            for engine in engines:
                await engine.update_weights(update)
        assert len(ports.opened) == 2, "a group is used again"
        servers[1].close()
        for version in (3, 4):
            await stays.update_weights(sync.publish(version, dict(given.build_model("qwen3", 0).named_parameters())))
        assert len(ports.opened) == 2
        assert len(sync._groups) == 1, "the other took no part in version 3"
        until(lambda: ports.there() == [True, False])
        # one that the learner has let go has only to be made again
        sync.drop(next(iter(sync._groups)))
        await stays.update_weights(sync.publish(5, dict(given.build_model("qwen3", 1).named_parameters())))
        done = await stays.generate([3, 4], SamplingParams(8))
        assert set(done.versions.tolist()) == {5}
        await stays.aclose()
        await dies.aclose()

    try:
        asyncio.run(play())
    finally:
        sync.close()
        for server in servers:
            server.close()


@pytest.mark.slow
def test_a_connection_that_ends_in_mid_update_leaves_no_group(
    given: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = DistributedSync(bucket_bytes=20_000)
    ports = Ports(sync, monkeypatch)
    server = given.serve("fake", tmp_path)

    async def play() -> None:
        engine = given.served_engine(server)
        await engine.update_weights(sync.publish(1, dict(given.build_model("qwen3", 1).named_parameters())))
        assert ports.there() == [True]
        asked: list[int] = []
        sending = sync.send

        def noted(*told: Any) -> None:
            sending(*told)
            asked.append(1)

        monkeypatch.setattr(sync, "send", noted)
        update = sync.publish(2, dict(given.build_model("qwen3", 0).named_parameters()))
        task = asyncio.create_task(engine.update_weights(update))
        while not asked:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.to_thread(until, lambda: not sync._groups)
        await asyncio.to_thread(until, lambda: ports.there() == [False])
        await engine.aclose()

    try:
        asyncio.run(play())
    finally:
        sync.close()
        server.close()
