"""What only an engine in a process of its own can do wrong. The engine behind the pipe is the scripted one: cheap."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from agentgym.config import load_config
from agentgym.engines.process import ProcessEngine
from agentgym.engines.scripted import ScriptedEngine
from agentgym.errors import ConfigError, EngineFault
from agentgym.types import SamplingParams

PARAMS = SamplingParams(8)


@pytest.fixture(scope="module")
def engine() -> Iterator[ProcessEngine]:
    engine = ProcessEngine(functools.partial(ScriptedEngine, [[i] for i in range(1000)], version=7))
    yield engine
    asyncio.run(engine.aclose())


def test_it_starts_at_the_version_of_what_it_holds(engine: ProcessEngine) -> None:
    assert engine.version == 7
    assert asyncio.run(engine.generate([1], PARAMS)).versions.tolist() == [7]


def test_answers_find_their_requests(engine: ProcessEngine) -> None:
    async def play() -> list[int]:
        first = int((await engine.generate([1], PARAMS)).ids[0])
        done = await asyncio.gather(*(engine.generate([i], PARAMS) for i in range(100)))
        return [int(c.ids[0]) - first for c in done]

    assert asyncio.run(play()) == list(range(1, 101))


def test_ctrl_c_is_the_parents_to_handle(engine: ProcessEngine) -> None:
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGINT)
    time.sleep(0.1)
    assert len(asyncio.run(engine.generate([1], PARAMS)).ids) == 1


def test_counters_are_there_from_the_start() -> None:
    engine = ProcessEngine(functools.partial(ScriptedEngine, [[1]]))
    try:
        assert engine.stats.keys() == ScriptedEngine([[1]]).stats.keys()
    finally:
        asyncio.run(engine.aclose())


def test_counters_come_along(engine: ProcessEngine) -> None:
    before = engine.stats.get("calls", 0)
    asyncio.run(engine.generate([1], PARAMS))
    assert engine.stats["calls"] == before + 1


def test_a_process_that_dies_fails_its_requests() -> None:
    engine = ProcessEngine(functools.partial(ScriptedEngine, [[1]] * 9, delay=60.0))

    async def play() -> None:
        pending = [asyncio.create_task(engine.generate([1], PARAMS)) for _ in range(3)]
        await asyncio.sleep(0.1)
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        for result in await asyncio.wait_for(asyncio.gather(*pending, return_exceptions=True), 10):
            assert isinstance(result, EngineFault)
            assert "-9" in str(result)
        with pytest.raises(EngineFault, match="-9"):
            await engine.generate([1], PARAMS)
        await engine.aclose()

    asyncio.run(play())


_PARENT = """
import functools, os, signal, sys
from agentgym.config import load_config
from agentgym.engines.process import ProcessEngine
from agentgym.engines.scripted import ScriptedEngine
if __name__ == "__main__":
    engine = ProcessEngine(functools.partial(ScriptedEngine, [[1]]))
    print(engine.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_no_orphan_stays_when_the_parent_is_killed() -> None:
    parent = subprocess.run([sys.executable, "-c", _PARENT], capture_output=True, text=True, timeout=60, check=False)
    pid = int(parent.stdout)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _alive(pid):
        time.sleep(0.05)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_building_the_engine_raised_is_raised_here() -> None:
    with pytest.raises(ConfigError, match="no-such-recipe"):
        ProcessEngine(functools.partial(load_config, "no-such-recipe"))  # type: ignore[arg-type]


def test_closing_fails_what_is_pending_and_what_comes_later() -> None:
    engine = ProcessEngine(functools.partial(ScriptedEngine, [[1]] * 9, delay=60.0))

    async def play() -> None:
        pending = [asyncio.create_task(engine.generate([1], PARAMS)) for _ in range(3)]
        await asyncio.sleep(0.1)
        await asyncio.wait_for(engine.aclose(), 30)  # not the minute that the replies would take
        assert engine.pid is not None
        assert not _alive(engine.pid)
        for result in await asyncio.gather(*pending, return_exceptions=True):
            assert isinstance(result, EngineFault)
        with pytest.raises(EngineFault, match="closed"):
            await engine.generate([1], PARAMS)
        await engine.aclose()

    asyncio.run(play())
