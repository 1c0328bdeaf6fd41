"""Whatever an env's own code raises, its episode ends as a fault of the right boundary: no group is ever lost, no run
ended by one episode, and no worker taken along."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

import agentgym as ag
from agentgym.config import load_config
from agentgym.engines.scripted import ScriptedEngine
from agentgym.errors import (
    AgentGymError,
    ConfigError,
    DataError,
    EnvFault,
    SandboxFileError,
    SandboxUnavailable,
    ToolFault,
    boundary,
)
from agentgym.protocols import GroupPay, Sandbox
from agentgym.rollout import worker as working
from agentgym.rollout.agent import Agent
from agentgym.rollout.collector import Collector
from agentgym.rollout.episode import Limits
from agentgym.rollout.parsers import get_parser
from agentgym.rollout.worker import Worker, WorkerFailed, WorkerSpec
from agentgym.tools.toolset import ToolSet
from agentgym.types import Group, GroupRequest, Outcome, StopReason, ToolCall
from tests.rollout.test_episode import END, Letters

REQUEST = GroupRequest("0:t", "raising", 0, 2, seed=0)
KINDS = {"setup": "env_error", "tool": "tool_error", "reward": "verifier_error"}
SAID = [*map(ord, "7"), END]


def calls(*tools: str) -> list[int]:
    return [
        *map(ord, "".join(f'<tool_call>{{"name": "{tool}", "arguments": {{}}}}</tool_call>' for tool in tools)),
        END,
    ]


async def leak() -> None:
    """A cancellation that somebody's code aims at the task it happens to run in."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(1)


async def stray() -> None:
    """The cancellation of something that was waited for."""
    waited_for: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waited_for.cancel()
    await waited_for


def raising(error: BaseException) -> Callable[[], Any]:
    async def boom() -> None:
        raise error

    return boom


class Raising(ag.ToolEnv):
    """Its own code fails at one place, in the episodes of a group's first place."""

    def __init__(self, where: str, boom: Callable[[], Any]):
        @ag.tool
        async def tool() -> str:
            """A tool."""
            return await self.maybe("tool")

        @ag.tool(parallel=True)
        async def beside() -> str:
            """A tool, one of several at once."""
            return await self.maybe("beside")

        super().__init__(tasks=[ag.Task("t", "Go.", "7")], tools=[tool, beside], holdout=0)
        self.where, self.boom = where, boom

    async def maybe(self, where: str) -> str:
        if where == self.where:
            await self.boom()
        return "ok"

    async def setup(self, episode: ag.Episode) -> None:
        await self.maybe("setup")

    async def reward(self, task: ag.Task, answer: str, episode: ag.Episode) -> float:
        await self.maybe("reward")
        return float(answer == task.answer)


def agent_of(*replies: list[int]) -> Agent:
    def answer(ids: list[int], params: Any) -> list[int]:
        return replies[min(sum(i == END for i in ids), len(replies) - 1)]

    return Agent(ScriptedEngine(answer), Letters(), get_parser("hermes"))


def play(env: Callable[[], Any], *replies: list[int], seconds: float = 10.0) -> Group:
    collector = Collector(agent_of(*(replies or (calls("tool"), SAID))), lambda _: env(), Limits(seconds=seconds))

    async def run() -> Group:
        # a group that is lost is waited for in vain
        async with asyncio.timeout(5.0):
            group = await collector.play_group(REQUEST)
        await collector.aclose()
        return group

    return asyncio.run(run())


BOOMS: dict[str, Callable[[], Any]] = {
    "a stray cancellation": stray,
    "CancelledError": raising(asyncio.CancelledError()),
    "a leaked cancellation": leak,
    "SystemExit": raising(SystemExit(3)),
    "DataError": raising(DataError("rows.jsonl:7: a bad row")),
    "AgentGymError": raising(AgentGymError("something of ours")),
    "SandboxFileError": raising(SandboxFileError("x.txt: No such file")),
}


@pytest.mark.parametrize("where", KINDS)
@pytest.mark.parametrize("boom", BOOMS.values(), ids=list(BOOMS))
def test_it_is_the_boundarys_fault_and_nothing_is_lost(where: str, boom: Callable[[], Any]) -> None:
    group = play(lambda: Raising(where, boom))
    assert len(group.trajectories) == 2
    for t in group.trajectories:
        if where == "tool" and boom in (BOOMS["SystemExit"], BOOMS["SandboxFileError"]):
            assert (t.reward, t.error) == (1.0, None), "that is an answer"
            continue
        assert (t.reward, t.outcome, t.stop_reason) == (None, Outcome.unscored, StopReason.fault)
        assert (t.error or "").startswith(f"{KINDS[where]}: "), t.error


def test_what_it_says() -> None:
    def told(where: str, boom: str) -> str:
        return play(lambda: Raising(where, BOOMS[boom])).trajectories[0].error or ""

    assert told("setup", "DataError") == "env_error: setup: DataError: rows.jsonl:7: a bad row"
    assert told("tool", "DataError") == "tool_error: tool: DataError: rows.jsonl:7: a bad row"
    assert told("reward", "SystemExit") == "verifier_error: reward 'reward': SystemExit: 3"
    nobody = "it was cancelled, and not by the episode's end"
    assert told("setup", "CancelledError") == f"env_error: setup: CancelledError: {nobody}"
    assert told("tool", "a stray cancellation") == f"tool_error: tool: CancelledError: {nobody}"
    assert told("reward", "a leaked cancellation") == f"verifier_error: reward: CancelledError: {nobody}"
    assert told("tool", "a leaked cancellation") == f"tool_error: tool tool: CancelledError: {nobody}"


@pytest.mark.parametrize("boom", ["a stray cancellation", "a leaked cancellation", "DataError"])
def test_of_tools_that_run_at_once(boom: str) -> None:
    group = play(lambda: Raising("beside", BOOMS[boom]), calls("beside", "beside"), SAID)
    kinds = {(t.error or "").partition(":")[0] for t in group.trajectories}
    assert kinds <= {"tool_error", "env_error"}
    assert len(group.trajectories) == 2


@pytest.mark.parametrize("error", [asyncio.CancelledError(), SystemExit(1), ConfigError("no"), OSError("no")], ids=repr)
def test_an_env_that_cannot_be_made_or_closed(error: BaseException) -> None:
    def refuse() -> Any:
        raise error

    assert [(t.error or "").partition(":")[0] for t in play(refuse).trajectories] == ["env_error"] * 2

    class Stuck(Raising):
        async def aclose(self) -> None:
            raise error

    group = play(lambda: Stuck("reward", BOOMS["DataError"]))
    assert {(t.error or "").partition(":")[0] for t in group.trajectories} == {"verifier_error"}


def test_a_sandbox_that_this_machine_cannot_hold_keeps_its_name() -> None:
    group = play(lambda: Raising("setup", raising(SandboxUnavailable("no namespaces here"))))
    assert {t.error for t in group.trajectories} == {"sandbox_error: no namespaces here"}


def test_a_file_that_is_not_there_is_told_to_the_model() -> None:
    @ag.tool
    async def show(path: str, sandbox: Sandbox) -> str:
        """Show a file."""
        return (await sandbox.read_file(path)).decode()

    def env() -> ag.ToolEnv:
        return ag.ToolEnv(
            [ag.Task("t", "Go.", "7")], tools=[show], reward=lambda t, a, e: 1.0, holdout=0, sandbox={"backend": "fake"}
        )

    call = '<tool_call>{"name": "show", "arguments": {"path": "nothing.txt"}}</tool_call>'
    for t in play(env, [*map(ord, call), END], SAID).trajectories:
        assert t.turns[0].observations[0].text == "error: nothing.txt: no such file"
        assert (t.reward, t.error, t.metrics["tool_errors"]) == (1.0, None, 1)


def test_without_an_episode_a_users_mistake_stays_one() -> None:
    @ag.tool
    def bad() -> str:
        """A tool."""
        raise DataError("a bad row")

    with pytest.raises(DataError):
        asyncio.run(ToolSet([bad]).run_one(ToolCall("1", "bad", {})))


# -- what is meant ends an episode still -----------------------------------------------------------------------------


def test_the_deadline_and_the_end_are_no_faults_of_the_env() -> None:
    async def hang() -> None:
        await asyncio.sleep(60)

    group = play(lambda: Raising("setup", hang), seconds=0.1)
    assert {t.error for t in group.trajectories} == {"timeout: the env did not reset in time"}

    async def ended() -> None:
        collector = Collector(agent_of(SAID), lambda _: Raising("setup", hang), Limits())
        task = asyncio.create_task(collector.play_group(REQUEST))
        await asyncio.sleep(0.05)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(ended())


def test_a_boundary_lets_pass_what_ends_its_task_or_the_program() -> None:
    async def cancelled() -> None:
        with boundary(EnvFault, "here"):
            await asyncio.sleep(60)

    async def run() -> None:
        task = asyncio.create_task(cancelled())
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())
    for error in (KeyboardInterrupt(), GeneratorExit(), ToolFault("its own")):
        with pytest.raises(type(error)), boundary(EnvFault, "here"):
            raise error
    with pytest.raises(EnvFault, match="here: CancelledError"), boundary(EnvFault, "here"):
        raise asyncio.CancelledError  # without an event loop there is nobody who could have meant it


# -- the worker ------------------------------------------------------------------------------------------------------


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], tuple[Worker, list[Any]]]:
    """Makes a worker that plays an env, with the list of what it emits. In a running loop."""

    def make(env: Any) -> tuple[Worker, list[Any]]:
        agent = agent_of(SAID)
        monkeypatch.setattr(working, "build_agent", lambda spec, given=None: (agent.engine, agent))
        monkeypatch.setattr(working, "env_factory", lambda config: lambda _: env)
        emitted: list[Any] = []
        return Worker(WorkerSpec(load_config("store"), ""), emitted.append), emitted

    return make


class Comparing(Raising):
    """Fails where the episodes of a group are compared."""

    async def score_group(self, trajectories: Any, options: Any) -> list[GroupPay]:
        await self.maybe("score_group")
        return [GroupPay() for _ in trajectories]


@pytest.mark.parametrize("boom", [leak, stray])
def test_a_worker_never_keeps_a_group_to_itself(worker: Any, boom: Any) -> None:
    async def run() -> list[Any]:
        made, emitted = worker(Comparing("score_group", boom))
        made.submit(REQUEST)
        until = time.monotonic() + 5.0
        while not emitted and time.monotonic() < until:
            await asyncio.sleep(0.01)
        await made.aclose()
        return list(emitted)

    (group,) = asyncio.run(run())
    if boom is leak:  # aimed at the worker's own task
        assert isinstance(group, WorkerFailed)
        assert "CancelledError" in group.traceback
    else:
        assert {(t.error or "").partition(":")[0] for t in group.trajectories} == {"verifier_error"}


def test_a_worker_that_is_closed_emits_nothing_of_what_is_under_way(worker: Any) -> None:
    async def hang() -> None:
        await asyncio.sleep(60)

    async def run() -> list[Any]:
        made, emitted = worker(Raising("setup", hang))
        made.submit(REQUEST)
        await asyncio.sleep(0.05)
        await made.aclose()
        return list(emitted)

    assert asyncio.run(run()) == []
