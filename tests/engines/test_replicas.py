"""Several engines as one: where requests go, what happens when one is away, updates in turn."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from agentgym.engines.replicas import ReplicatedEngine
from agentgym.engines.scripted import ScriptedEngine
from agentgym.errors import EngineFault, EngineGone
from agentgym.types import Completion, SamplingParams
from agentgym.weights import WeightUpdate

PARAMS = SamplingParams(2)


class Server(ScriptedEngine):
    """A scripted engine whose server can be taken away; its tokens say which one answered."""

    def __init__(self, number: int, delay: float = 0.0):
        super().__init__(lambda ids, params: [number, number], delay=delay)
        self.number, self.dead, self.busy = number, False, 0
        self.served: list[list[int]] = []

    async def generate(self, ids: Sequence[int], params: SamplingParams, *, session: str | None = None) -> Completion:
        if self.dead:
            raise EngineGone(f"server {self.number} is away")
        self.served.append([int(i) for i in ids])
        done = await super().generate(ids, params, session=session)
        if self.dead:
            raise EngineGone(f"server {self.number} died over it")
        return done

    async def update_weights(self, update: WeightUpdate) -> None:
        if self.dead:
            raise EngineGone(f"server {self.number} is away")
        await asyncio.sleep(0.01)
        await super().update_weights(update)


def answered(completion: Completion) -> int:
    return int(completion.ids[0])


def test_a_session_stays_with_its_replica_and_equal_beginnings_meet() -> None:
    servers = [Server(i) for i in range(4)]
    engine = ReplicatedEngine(servers)

    async def play() -> None:
        for start in range(12):
            prompt = [start] * 70
            first = answered(await engine.generate(prompt, PARAMS, session=f"a{start}"))
            for turn in range(3):
                longer = prompt + [turn] * (turn + 1)
                assert answered(await engine.generate(longer, PARAMS, session=f"a{start}")) == first
            assert answered(await engine.generate(prompt, PARAMS, session=f"b{start}")) == first

    asyncio.run(play())
    assert all(server.served for server in servers)


def test_load_is_shared_where_one_beginning_is_asked_for_by_all() -> None:
    servers = [Server(i, delay=0.01) for i in range(4)]
    engine = ReplicatedEngine(servers)

    async def play() -> list[Completion]:
        return await asyncio.gather(*(engine.generate([7] * 10, PARAMS, session=f"s{i}") for i in range(80)))

    counts = Counter(answered(done) for done in asyncio.run(play()))
    assert len(counts) == 4
    assert max(counts.values()) - min(counts.values()) <= 9


def test_a_dead_replicas_requests_go_elsewhere_and_it_serves_again_only_with_the_weights_of_the_day() -> None:
    servers = [Server(0, delay=0.02), Server(1, delay=0.02)]
    revived: list[int] = []

    async def revive(index: int) -> None:
        revived.append(index)
        await asyncio.sleep(0.02)
        if len(revived) < 3:
            raise EngineFault("not yet")
        servers[index].dead = False
        servers[index]._version = -1  # as it was started

    engine = ReplicatedEngine(servers, revive=revive, pause=0.01)

    async def play() -> None:
        await engine.update_weights(WeightUpdate(4))
        under_way = [asyncio.create_task(engine.generate([i], PARAMS, session=f"s{i}")) for i in range(16)]
        await asyncio.sleep(0.005)
        servers[0].dead = True
        done = await asyncio.gather(*under_way)
        assert {answered(completion) for completion in done} == {1}
        assert engine.stats["deaths"] == 1
        await engine.update_weights(WeightUpdate(5))  # while it is away
        while engine.stats["serving"] < 2:
            later = await engine.generate([1], PARAMS)
            assert set(later.versions.tolist()) == {5}
        assert servers[0].version == 5
        await engine.aclose()

    asyncio.run(play())
    assert len(revived) == 3


def test_some_replica_serves_at_every_moment_of_an_update() -> None:
    servers = [Server(i) for i in range(3)]
    engine = ReplicatedEngine(servers)
    seen: list[float] = []

    async def play() -> None:
        update = asyncio.create_task(engine.update_weights(WeightUpdate(1)))
        while not update.done():
            seen.append(engine.stats["serving"])
            done = await engine.generate([len(seen)], PARAMS)
            assert not any(r.updating and r.index == answered(done) for r in engine.replicas)
            await asyncio.sleep(0.001)
        await update

    asyncio.run(play())
    assert min(seen) >= 2 - 1e-9
    assert [server.version for server in servers] == [1, 1, 1] == [engine.version] * 3


def test_weights_that_did_not_arrive_stop_the_update() -> None:
    class Deaf(Server):
        async def update_weights(self, update: WeightUpdate) -> None:
            raise EngineFault("server 1 does not run version 3")

    engine = ReplicatedEngine([Server(0), Deaf(1)])
    with pytest.raises(EngineFault, match="server 1 does not run version 3"):
        asyncio.run(engine.update_weights(WeightUpdate(3)))
    assert engine.version == 0


@pytest.mark.parametrize("answers", [True, False])
def test_one_that_dies_over_new_weights_is_brought_back_and_one_that_refuses_them_stops_the_update(
    answers: bool,
) -> None:
    class Dying(Server):
        revived = False

        async def update_weights(self, update: WeightUpdate) -> None:
            if not self.revived:
                raise EngineFault("HTTP 500: the scheduler is dead")
            await super().update_weights(update)

        async def healthy(self) -> bool:
            return answers

    servers = [Server(0), Dying(1)]

    async def revive(index: int) -> None:
        servers[index].revived = True  # type: ignore[attr-defined]

    engine = ReplicatedEngine(servers, revive=revive, pause=0.01)

    async def play() -> None:
        if answers:
            with pytest.raises(EngineFault, match="HTTP 500"):
                await engine.update_weights(WeightUpdate(1))
        else:
            await engine.update_weights(WeightUpdate(1))
            while engine.stats["serving"] < 2:
                await asyncio.sleep(0.01)
            assert [server.version for server in servers] == [1, 1]
        await engine.aclose()

    asyncio.run(play())


@pytest.mark.parametrize("revivable", [False, True])
def test_where_none_is_left_it_says_so_in_time(revivable: bool) -> None:
    async def never(index: int) -> None:
        raise EngineFault("the disk is gone")

    dead = [Server(0), Server(1)]
    for server in dead:
        server.dead = True
    options: dict[str, Any] = {"revive": never} if revivable else {}
    engine = ReplicatedEngine(dead, patience=0.2, pause=0.01, **options)

    async def play() -> None:
        with pytest.raises(EngineGone, match=r"none of 2 engine replicas is left: .*(is away|disk is gone)"):
            await engine.generate([1], PARAMS)
        await engine.aclose()

    asyncio.run(play())


def test_closing_closes_all_and_then_what_holds_them() -> None:
    servers, ended = [Server(0), Server(1)], []
    engine = ReplicatedEngine(servers, closed=lambda: ended.append(True))
    asyncio.run(engine.aclose())
    asyncio.run(engine.aclose())
    assert ended == [True]
    with pytest.raises(EngineFault, match="closed"):
        asyncio.run(engine.generate([1], PARAMS))
