"""How many play at once: what the bound does on a simulated clock, and in a worker with a real engine."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from agentgym.config import ModelConfig, load_config
from agentgym.engines.load import Load, load_of
from agentgym.engines.replicas import ReplicatedEngine
from agentgym.engines.scripted import ScriptedEngine
from agentgym.engines.sglang.client import Missing
from agentgym.engines.sglang.load import ask_load, read_load
from agentgym.errors import EngineFault
from agentgym.rollout import worker as working
from agentgym.rollout.adaptive import LOOK_SECONDS, Adaptive
from agentgym.rollout.room import Room
from agentgym.rollout.worker import Worker, WorkerSpec
from agentgym.trainers.checkpoint import save_model
from agentgym.trainers.tiny_model import build_model, build_tokenizer
from agentgym.types import Group, GroupRequest


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Its clock jumps to whatever comes next."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._selector.select = self._jump  # type: ignore[attr-defined]

    def time(self) -> float:
        return self.now

    def _jump(self, timeout: float | None = None) -> list[Any]:
        self.now += timeout or 0.0
        return []


def simulate(work: Coroutine[Any, Any, Any]) -> Any:
    loop = SimulatedLoop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


class Engine:
    """Decodes `capacity` requests at once, a second each; the others queue."""

    def __init__(self, capacity: int):
        self.places = Room(capacity)
        self.busy = self.queue_seconds = 0.0

    async def generate(self) -> None:
        began = asyncio.get_running_loop().time()
        async with self.places:
            self.queue_seconds += asyncio.get_running_loop().time() - began
            await asyncio.sleep(1.0)
            self.busy += 1.0

    async def load(self) -> Load:
        return Load(self.places.waiting)


async def episodes(engine: Engine, room: Room, count: int, tool_seconds: float) -> None:
    draw = random.Random(0)

    async def one() -> None:
        async with room:
            for _ in range(4):
                await engine.generate()
                await asyncio.sleep(tool_seconds * draw.random() * 2)

    await asyncio.gather(*(one() for _ in range(count)))


async def run(
    capacity: int, tool_seconds: float, ceiling: int = 400, *, changes: dict[float, int] | None = None
) -> tuple[Engine, list[tuple[float, int]]]:
    engine, room = Engine(capacity), Room(ceiling)
    adaptive = Adaptive(room, ceiling)
    loop = asyncio.get_running_loop()
    limits: list[tuple[float, int]] = []

    async def look() -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for at, to in (changes or {}).items():
                if loop.time() >= at:
                    engine.places.limit = to
            adaptive.look(await load_of(engine))
            limits.append((loop.time(), room.limit))

    looking = loop.create_task(look())
    await episodes(engine, room, 1500, tool_seconds)
    looking.cancel()
    return engine, limits


@pytest.mark.parametrize(("capacity", "tool_seconds"), [(40, 0.0), (40, 1.0), (40, 3.0), (10, 1.0)])
def test_the_engine_is_kept_busy_and_its_queue_short(capacity: int, tool_seconds: float) -> None:
    engine, limits = simulate(run(capacity, tool_seconds))
    fitting = capacity * (1 + tool_seconds)
    steady = [limit for at, limit in limits if 40 < at < 0.8 * limits[-1][0]]
    assert 0.8 * fitting < sum(steady) / len(steady) < 1.2 * fitting, "what keeps the engine busy, tools counted in"
    assert engine.busy / (capacity * limits[-1][0]) > 0.8
    assert engine.queue_seconds / engine.busy < 0.7, "a request waits for less than it takes"


def test_it_follows_an_engine_that_shrinks_and_grows() -> None:
    _, limits = simulate(run(40, 1.0, changes={60.0: 10, 160.0: 40}))

    def mean(begin: float, end: float) -> float:
        found = [limit for at, limit in limits if begin < at < end]
        return sum(found) / len(found)

    assert 60 < mean(30, 60) < 100
    assert 15 < mean(90, 160) < 30
    assert 50 < mean(190, 220) < 100


def test_it_only_grows_where_others_wait_and_backs_off_once_for_one_cause() -> None:
    room = Room(100)
    adaptive = Adaptive(room, 100, slots=32)
    for _ in range(5):
        adaptive.look(Load())
    assert room.limit == 32, "nobody waited"
    room.taken, room._queue = 32, type(room._queue)([asyncio.new_event_loop().create_future()])
    adaptive.look(Load())
    assert room.limit == 64
    room.taken = 64
    adaptive.look(Load(lost=3))
    assert room.limit == 51
    adaptive.look(Load(lost=9))
    assert room.limit == 51, "there are still more under way than that"
    room.taken = 51
    adaptive.look(Load(lost=9, cache=0.97))
    adaptive.look(Load(lost=9))
    assert (room.limit, adaptive.backed_off) == (40, 2)
    room.taken = 40
    for _ in range(3):
        adaptive.look(Load(queued=3, lost=9))
        room.taken = room.limit
    assert room.limit == 32, "for so many the engine has room"


def test_a_room_is_fair_and_gives_back_what_is_cancelled() -> None:
    async def go() -> list[int]:
        room, order = Room(1), []

        async def enter(i: int) -> None:
            async with room:
                order.append(i)
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(enter(i)) for i in range(5)]
        await asyncio.sleep(0)
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (room.taken, room.waiting) == (0, 0)
        room.limit = 0
        late = asyncio.create_task(enter(9))
        await asyncio.sleep(0.01)
        assert room.waiting == 1
        room.limit = 1
        await late
        return order

    assert asyncio.run(go()) == [0, 1, 3, 4, 9]


@pytest.mark.parametrize(
    ("answer", "load"),
    [
        (
            {"loads": [{"num_waiting_reqs": 2, "token_usage": 0.4}, {"num_waiting_reqs": 1, "token_usage": 0.9}]},
            (3, 0.9),
        ),
        ({"loads": [{"num_waiting_reqs": 0, "num_used_tokens": 50, "max_total_num_tokens": 200}]}, (0, 0.25)),
        ([{"dp_rank": 0, "num_reqs": 4, "num_waiting_reqs": 7, "num_tokens": 90}], (7, 0.0)),
    ],
)
def test_what_servers_say(answer: Any, load: tuple[int, float]) -> None:
    assert read_load(answer) == Load(*load)
    for odd in ("full", {"loads": 3}, [1]):
        with pytest.raises(EngineFault):
            read_load(odd)


def test_a_server_that_does_not_say_is_asked_by_the_older_name_and_then_no_more() -> None:
    class Client:
        def __init__(self, known: str):
            self.known, self.asked = known, []

        async def get(self, path: str, *, timeout: float) -> Any:
            self.asked.append(path)
            if path != self.known:
                raise Missing(path)
            return [{"num_waiting_reqs": 1}]

    assert asyncio.run(ask_load(Client("get_load"))) == Load(1)  # type: ignore[arg-type]
    assert asyncio.run(ask_load(Client("none"))) is None  # type: ignore[arg-type]


def test_replicas_queues_are_added_up() -> None:
    class Loaded(ScriptedEngine):
        async def load(self) -> Load:
            return Load(2, 0.5, 1)

    engine = ReplicatedEngine([Loaded([]), Loaded([]), ScriptedEngine([])])
    assert asyncio.run(load_of(engine)) == Load(4, 0.5, 2)


ENV = """
import agentgym as ag

TASKS = [ag.Task(str(i), "Go.", "7") for i in range(8)]
going = ag.register("Going-v0", tasks=TASKS, holdout=0)(lambda task, answer, episode: 0.0)
"""


def test_in_a_worker_with_a_real_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """24 may play, and the engine has 4 slots: beyond these, requests queue."""
    monkeypatch.setattr(working, "LOOK_SECONDS", 0.01)
    (tmp_path / "envs.py").write_text(ENV)
    tokenizer = build_tokenizer(["Go."])
    model = build_model(len(tokenizer), ModelConfig(layers=1, width=32, heads=2), max_context=192, seed=0)
    save_model(model, tokenizer, tmp_path / "model")
    figures: dict[bool, dict[str, float]] = {}
    for adaptive in (True, False):
        given = {
            "env.id": f"{tmp_path}/envs.py:going", "rollout.concurrency": 24, "engine.slots": 4,
            "rollout.max_tokens": 8, "rollout.adaptive": adaptive,
        }  # fmt: skip
        done: list[Group] = []
        config = load_config(None, given)

        async def play(config: Any = config, done: list[Any] = done) -> dict[str, float]:
            worker = Worker(WorkerSpec(config, str(tmp_path / "model")), done.append)
            for i in range(6):
                worker.submit(GroupRequest(f"0:{i}", config.env.label, i, 8, seed=0))
            most = 0.0
            while len(done) < 6:
                await asyncio.sleep(0.005)
                most = max(most, worker.stats()["episodes"])
            stats = worker.stats()
            await worker.aclose()
            return {**stats, "most": most}

        figures[adaptive] = asyncio.run(play())
        assert all(t.reward is not None for group in done for t in group.trajectories)
    assert figures[False]["most"] == 4
    assert 4 < figures[True]["most"] <= 24
    assert figures[True]["backed_off"] > 0
    assert figures[True]["concurrency"] < 24
