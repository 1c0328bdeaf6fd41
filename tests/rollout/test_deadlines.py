"""tool < turn < episode: whatever hangs, the episode ends in time, and who let it wait is at fault, not the model."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import agentgym as ag
from agentgym import overrun
from agentgym.config import load_config
from agentgym.engines.scripted import ScriptedEngine
from agentgym.errors import ConfigError
from agentgym.rollout import collector as collecting
from agentgym.rollout import episode as playing
from agentgym.rollout.agent import Agent
from agentgym.rollout.collector import Collector
from agentgym.rollout.episode import Limits
from agentgym.rollout.parsers import get_parser
from agentgym.tools import toolset
from agentgym.tools.threads import Threads
from agentgym.types import Group, GroupRequest, Outcome, StopReason
from tests.rollout.test_episode import END, Letters

FOREVER = 60.0


def call(tool: str) -> list[int]:
    return [*map(ord, f'<tool_call>{{"name": "{tool}", "arguments": {{}}}}</tool_call>'), END]


@ag.tool
async def sleeps() -> str:
    """Waits, and lets others run."""
    await asyncio.sleep(FOREVER)
    return "awake"


@ag.tool
def blocks() -> str:
    """Waits in the system, and lets nobody run."""
    time.sleep(FOREVER)
    return "awake"


@ag.tool
def computes() -> str:
    """Never comes to an end."""
    until = time.monotonic() + FOREVER
    while time.monotonic() < until:
        pass
    return "done"


@ag.tool
async def deaf() -> str:
    """Does not end when it is told to."""
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.02)
    return "at last"


@ag.tool(timeout=0.05)
def declared() -> str:
    """Hangs, and says how long to wait for it."""
    time.sleep(0.5)
    return "awake"


@ag.tool(timeout=FOREVER)
def long_declared() -> str:
    """Hangs for longer than any episode lasts."""
    time.sleep(0.6)
    return "awake"


TOOLS = (sleeps, blocks, computes, deaf, declared, long_declared)


class Hanging(ag.ToolEnv):
    tools = TOOLS

    def __init__(self, where: str = "", **kwargs: Any):
        super().__init__(tasks=[ag.Task("t", "Go.", "7")], holdout=0, **kwargs)
        self.where = where

    async def _hang(self, where: str) -> None:
        if where == self.where:
            await asyncio.sleep(FOREVER)

    async def setup(self, episode: ag.Episode) -> None:
        await self._hang("setup")

    async def reward(self, task: ag.Task, answer: str, episode: ag.Episode) -> float:
        if self.where == "blocking reward":
            time.sleep(FOREVER)
        await self._hang("reward")
        return float(answer == task.answer)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overrun, "TICK", 0.02)
    monkeypatch.setattr(collecting, "DEAF_SECONDS", 0.1)
    monkeypatch.setattr(collecting, "VERDICT_SECONDS", 0.1)
    monkeypatch.setattr(playing, "VERDICT_SECONDS", 0.1)
    monkeypatch.setattr(toolset, "_slow", set())


def play(env: Hanging, replies: list[list[int]], limits: Limits, size: int = 1, delay: float = 0.0) -> Group:
    """A group, as the worker plays it. Each episode hears the replies in turn."""

    def answer(ids: list[int], params: Any) -> list[int]:
        return replies[min(sum(i == END for i in ids), len(replies) - 1)]

    agent = Agent(ScriptedEngine(answer, delay=delay), Letters(), get_parser("hermes"))
    collector = Collector(agent, lambda _: Hanging(env.where), limits)

    async def run() -> Group:
        group = await collector.play_group(GroupRequest("0:t", "hanging", 0, size, seed=0))
        await collector.aclose()
        return group

    began = time.monotonic()
    group = asyncio.run(run())
    assert time.monotonic() - began < FOREVER / 4
    return group


@pytest.mark.parametrize("tool", [sleeps, blocks, computes, long_declared], ids=lambda tool: tool.name)
@pytest.mark.parametrize("limits", [Limits(seconds=0.3), Limits(turn_seconds=0.3), Limits(tool_seconds=0.3)], ids=str)
def test_a_tool_that_hangs_ends_with_its_limit_and_is_at_fault(tool: Any, limits: Limits) -> None:
    (done,) = play(Hanging(), [call(tool.name), [ord("7"), END]], limits).trajectories
    assert (done.reward, done.outcome, done.stop_reason) == (None, Outcome.unscored, StopReason.fault)
    assert (done.error or "").startswith(f"tool_error: {tool.name} gave no answer ")
    assert done.seconds["wall"] < 2.0
    assert len(done.turns) == 1, "what was said is kept"


def test_a_tool_that_held_up_everybody_runs_in_a_thread_the_next_time() -> None:
    limits = Limits(seconds=0.3)
    play(Hanging(), [call("blocks")], limits)
    began = time.monotonic()
    group = play(Hanging(), [call("blocks")], limits, size=6)
    assert time.monotonic() - began < 1.5, "six at once"
    assert {(t.error or "").partition(":")[0] for t in group.trajectories} == {"tool_error"}


def test_its_own_timeout_is_an_answer() -> None:
    (done,) = play(Hanging(), [call("declared"), [ord("7"), END]], Limits(seconds=10.0)).trajectories
    assert done.turns[0].observations[0].text == "error: declared timed out after 0.05 s"
    assert (done.reward, done.error) == (1.0, None)


def test_one_that_does_not_end_when_told_is_left_behind() -> None:
    (done,) = play(Hanging(), [call("deaf")], Limits(seconds=0.1)).trajectories
    assert (done.reward, done.outcome) == (None, Outcome.unscored)
    assert done.error == "tool_error: the env or a tool did not end when its time was over"


@pytest.mark.parametrize("limits", [Limits(seconds=0.2), Limits(turn_seconds=0.2)], ids=str)
def test_an_engine_that_never_answers(limits: Limits) -> None:
    (done,) = play(Hanging(), [[ord("7"), END]], limits, delay=FOREVER).trajectories
    assert (done.reward, done.outcome) == (None, Outcome.unscored)
    assert (done.error or "").startswith("engine_error: it gave no answer for 0.")


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("setup", "timeout: the env did not reset in time"),
        ("reward", "verifier_error: the reward gave no verdict for 0."),
        ("blocking reward", "verifier_error: the reward gave no verdict for 0."),
    ],
)
def test_an_env_that_hangs(where: str, error: str) -> None:
    (done,) = play(Hanging(where), [[ord("7"), END]], Limits(seconds=0.2)).trajectories
    assert done.reward is None
    assert (done.error or "").startswith(error)


def test_time_that_many_have_taken_is_nobodys_fault() -> None:
    """Ten turns, each of them in good time: that is the model's doing, and what is there is scored."""
    (done,) = play(Hanging(), [call("nothing")], Limits(seconds=0.2), delay=0.03).trajectories
    assert (done.reward, done.stop_reason, done.error) == (0.0, StopReason.timeout, None)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"turn_seconds": 400}, "a turn cannot be longer than its episode: rollout.max_seconds is 300"),
        ({"tool_seconds": 400}, "a tool's call cannot be longer than its episode: rollout.max_seconds is 300"),
        (
            {"turn_seconds": 20, "tool_seconds": 30},
            "a tool's call cannot be longer than its turn: rollout.turn_seconds",
        ),
    ],
)
def test_limits_that_contradict_each_other_are_refused(given: dict[str, float], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_config(None, {"rollout": given})
    load_config(None, {"rollout": {"max_seconds": 30, "turn_seconds": 30, "tool_seconds": 5}})


def test_threads_that_hang_hold_up_neither_others_nor_the_end() -> None:
    mine = Threads()
    free = threading.Event()

    async def run() -> int:
        stuck = [asyncio.create_task(mine.run(free.wait)) for _ in range(40)]
        await asyncio.sleep(0.05)
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)
        assert mine.left == 40
        return await mine.run(lambda: 7)

    assert asyncio.run(run()) == 7, "asyncio.to_thread would wait for a thread, and at the end for all of them"
    free.set()


def test_threads_are_used_again_and_too_many_hanging_calls_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentgym.tools.threads.LEFT_BEHIND", 2)

    mine = Threads()

    async def run() -> set[int]:
        found = set()
        for _ in range(5):
            found.add(await mine.run(threading.get_ident))
            await asyncio.sleep(0.01)
        return found

    assert len(asyncio.run(run())) == 1
    mine.left = 2
    with pytest.raises(ag.errors.ToolFault, match="2 calls of tools are still running"):
        asyncio.run(mine.run(int))


def test_a_sandboxed_loop_of_the_models_own_is_an_answer(tmp_path: Path) -> None:
    """The model's code hangs, not the machinery: the call ends before its turn does, and the model hears of it."""
    from agentgym.activity import Activity, make_current, restore
    from agentgym.tools.episode import Episode
    from agentgym.tools.sandboxed import seconds

    episode = Episode(ag.Task("t", ""), None, sandbox_settings={"timeout": 5.0})  # type: ignore[arg-type]
    assert seconds(episode) is None
    before = make_current(Activity("e", 4.0))
    assert 3.0 < (seconds(episode) or 0) < 4.0
    restore(before)
    before = make_current(Activity("e", 60.0))
    assert seconds(episode) is None
    restore(before)
