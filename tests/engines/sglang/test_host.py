"""Who holds a server: it serves only with the weights of the day, and is looked into where somebody got no answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentgym.engines.sglang.facts import ServerFacts
from agentgym.engines.sglang.host import ServerHost
from agentgym.errors import EngineFault, EngineGone
from agentgym.weights import WeightUpdate

FACTS = ServerFacts("0.5.23", "model", "qwen3", "default", True, 100, 105, 1, True)


class Machine:
    """A server that can be started, and its engine."""

    def __init__(self) -> None:
        self.starts, self.alive, self.closed, self.hangs = 0, False, False, False
        self.fails: list[EngineFault] = []
        """Raised by the next starts."""
        self.taken: list[int] = []
        """Versions that it was brought since it was last started."""
        self.version = 0
        self.facts = FACTS
        self.pid = 0
        self.slow: asyncio.Event | None = None
        self.holds = False
        """Memory of its GPU."""

    def start(self) -> str:
        self.starts += 1
        if self.fails:
            raise self.fails.pop(0)
        self.alive, self.hangs, self.taken, self.pid = True, False, [], self.starts
        self.holds = True
        return f"http://h:{self.starts}"

    def close(self) -> None:
        self.alive, self.closed = False, True

    async def update_weights(self, update: WeightUpdate) -> None:
        if not self.alive or self.hangs:
            raise EngineGone("it is away")
        if self.slow is not None:
            await self.slow.wait()
        self.taken.append(update.version)
        self.version = update.version

    async def release_memory(self) -> None:
        if not self.alive or self.hangs:
            raise EngineGone("it is away")
        assert self.holds
        self.holds = False

    async def resume_memory(self) -> None:
        if not self.alive or self.hangs:
            raise EngineGone("it is away")
        assert not self.holds
        self.holds = True

    async def healthy(self, timeout: float) -> bool:
        return not self.hangs

    async def aclose(self) -> None:
        """Nothing is held."""


def hosted(machine: Machine) -> ServerHost:
    engine: Any = machine
    return ServerHost(machine, lambda url: engine, pause=0.001)


def test_it_comes_back_with_the_newest_weights_and_in_another_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentgym.engines.sglang.host.WATCH_SECONDS", 0.001)
    machine = Machine()

    async def play() -> None:
        host = hosted(machine)
        first = await host.start()
        assert (first.url, first.facts.label) == ("http://h:1", "default")
        assert await host.update(WeightUpdate(1))
        assert (await host.place()).facts.label == "", "what it called its first weights means nothing any more"
        machine.fails = [EngineFault("no memory"), EngineGone("not yet")]
        machine.alive = False
        while host.serves:
            await asyncio.sleep(0.001)
        assert not await host.update(WeightUpdate(2))
        second = await host.place(first.life)
        assert second.url == "http://h:4"
        assert second.life != first.life
        assert machine.taken == [2], "it never served with what it was started with"
        assert host.deaths == {"died": 1}
        await host.aclose()

    asyncio.run(play())
    assert machine.closed


def test_an_update_that_comes_while_it_starts_is_there_before_it_serves() -> None:
    machine = Machine()

    async def play() -> None:
        machine.slow = asyncio.Event()
        host = hosted(machine)
        starting = asyncio.create_task(host.start(WeightUpdate(1)))
        while not machine.starts:
            await asyncio.sleep(0.001)
        assert not await host.update(WeightUpdate(2))
        assert not await host.update(WeightUpdate(1)), "an older one changes nothing"
        machine.slow.set()
        await starting
        assert machine.taken[-1] == 2
        await host.aclose()

    asyncio.run(play())


def test_one_complaint_restarts_a_server_that_hangs_and_not_one_that_is_well() -> None:
    machine = Machine()

    async def play() -> None:
        host = hosted(machine)
        first = await host.start(WeightUpdate(3))
        assert await host.place(first.life) == first
        assert machine.starts == 1
        machine.hangs = True
        asked = await asyncio.gather(*(host.place(first.life) for _ in range(5)))
        assert {place.life for place in asked} != {first.life}
        assert machine.starts == 2
        assert machine.taken == [3]
        assert host.deaths == {"silent": 1}
        assert await host.place("a life of long ago") == asked[0]
        await host.aclose()

    asyncio.run(play())


def test_it_is_not_looked_into_while_its_weights_are_exchanged() -> None:
    machine = Machine()

    async def play() -> None:
        host = hosted(machine)
        first = await host.start()
        machine.slow = asyncio.Event()
        machine.hangs = False
        updating = asyncio.create_task(host.update(WeightUpdate(1)))
        await asyncio.sleep(0)
        asking = asyncio.create_task(host.place(first.life))
        await asyncio.sleep(0.01)
        assert not asking.done()
        machine.slow.set()
        assert await updating
        assert (await asking).life == first.life
        await host.aclose()

    asyncio.run(play())


def test_a_first_start_that_fails_is_told_and_leaves_nothing() -> None:
    machine = Machine()
    machine.fails = [EngineFault("ended while it was starting")]

    async def play() -> None:
        with pytest.raises(EngineFault, match="while it was starting"):
            await hosted(machine).start()

    asyncio.run(play())
    assert machine.closed


def test_weights_that_are_not_those_meant_are_told() -> None:
    machine = Machine()

    async def play() -> None:
        host = hosted(machine)
        await host.start()

        async def deaf(update: WeightUpdate) -> None:
            raise EngineFault("does not run version 4")

        machine.update_weights = deaf  # type: ignore[method-assign]
        with pytest.raises(EngineFault, match="version 4"):
            await host.update(WeightUpdate(4))
        await host.aclose()

    asyncio.run(play())


@pytest.mark.parametrize("how", ["it is gone", "it hangs"])
def test_one_that_dies_over_new_weights_comes_back_with_them_however_it_shows(how: str) -> None:
    machine = Machine()
    taking = machine.update_weights

    async def dies(update: WeightUpdate) -> None:
        machine.update_weights = taking  # type: ignore[method-assign]
        machine.alive, machine.hangs = how == "it hangs", how == "it hangs"
        raise EngineFault("HTTP 500: the scheduler is dead")

    async def play() -> None:
        host = hosted(machine)
        first = await host.start()
        machine.update_weights = dies  # type: ignore[method-assign]
        assert not await host.update(WeightUpdate(4))
        assert (await host.place()).life != first.life
        assert (machine.starts, machine.taken) == (2, [4])
        assert host.deaths == {"silent" if how == "it hangs" else "died": 1}
        await host.aclose()

    asyncio.run(play())


def test_a_server_that_dies_while_its_memory_is_anothers_is_started_when_it_may_have_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agentgym.engines.sglang.host.WATCH_SECONDS", 0.001)
    machine = Machine()

    async def play() -> None:
        host = hosted(machine)
        first = await host.start()
        await host.release_memory()
        assert not machine.holds
        assert await host.place(first.life) == first, "it is not asked for a token, which it could not give"
        await host.resume_memory()
        assert machine.holds
        await host.release_memory()
        machine.alive = machine.holds = False
        while host.serves:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        assert machine.starts == 1, "it would take memory that is another's"
        assert not await host.update(WeightUpdate(4))
        await host.resume_memory()
        second = await host.place(first.life)
        assert (machine.starts, machine.taken) == (2, [4])
        assert second.life != first.life
        machine.alive = False
        await host.release_memory()  # it is found dead then, and its memory free
        assert not host.serves
        assert host.deaths == {"died": 2}
        await host.aclose()

    asyncio.run(play())


def test_one_that_hangs_with_its_memory_cannot_release_it() -> None:
    machine = Machine()

    async def play() -> None:
        host = hosted(machine)
        await host.start()
        machine.hangs = True
        with pytest.raises(EngineGone):
            await host.release_memory()
        await host.aclose()

    asyncio.run(play())


def test_one_that_may_hold_no_memory_yet_is_started_later() -> None:
    machine = Machine()

    async def play() -> None:
        host = hosted(machine)
        host.rest()
        starting = asyncio.create_task(host.start(WeightUpdate(2)))
        await asyncio.sleep(0.02)
        assert machine.starts == 0
        await host.resume_memory()
        await starting
        assert (machine.starts, machine.taken, machine.holds) == (1, [2], True)
        await host.aclose()

    asyncio.run(play())
