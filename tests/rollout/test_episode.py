"""One episode: how limits and failures end it. A failure is data, and never reward 0."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import agentgym as ag
from agentgym.engines.scripted import ScriptedEngine
from agentgym.errors import EngineFault, ToolFault
from agentgym.protocols import Rendered, Start, Step
from agentgym.rollout.agent import Agent
from agentgym.rollout.collector import Collector, episode_seed
from agentgym.rollout.episode import Limits, Play, run_episode
from agentgym.rollout.parsers import get_parser
from agentgym.trainers.step_metrics import group_metrics
from agentgym.types import GroupRequest, Message, Outcome, StopReason, Trajectory

END = 0
CALL = '<tool_call>{"name": "count", "arguments": {"part": "nuts"}}</tool_call>'


class Letters:
    """A renderer whose tokens are code points; `rewrites` makes every later turn start afresh, as some templates do."""

    stop_ids = (END,)

    def __init__(self, rewrites: bool = False):
        self.rewrites = rewrites

    def _ids(self, messages: Any) -> np.ndarray[Any, Any]:
        return np.array([ord(c) for m in messages for c in f"{m.role}:{m.text};"], np.int32)

    def start(self, messages: Any, tools: Any = ()) -> Rendered:
        return Rendered(self._ids(messages))

    def extend(self, history: Any, completion: Any, added: Any, tools: Any = ()) -> Rendered:
        if self.rewrites:
            return Rendered(self._ids([*history, *added]), rewritten=True)
        return Rendered(self._ids(added))

    def decode(self, ids: Any) -> str:
        return "".join(chr(i) for i in ids if i != END)

    def branches(self, messages: Any, tools: Any = ()) -> Any:
        raise NotImplementedError


def says(*replies: str) -> ScriptedEngine:
    return ScriptedEngine([[*map(ord, reply), END] for reply in replies])


@ag.tool
def count(part: str) -> int:
    """How many there are."""
    return {"nuts": 7}[part]


class Parts(ag.ToolEnv):
    tools = (count,)
    tasks_given = (ag.Task("nuts", "How many nuts?", "7"),)

    def __init__(self, **kwargs: Any):
        super().__init__(tasks=self.tasks_given, holdout=0, **kwargs)

    def reward(self, task: ag.Task, answer: str, episode: ag.Episode) -> float:
        return float(answer == task.answer)


def play(env: Any, engine: Any, limits: Limits | None = None, renderer: Any = None) -> Trajectory:
    agent = Agent(engine, renderer or Letters(), get_parser("hermes"))
    episode = run_episode(env, agent, Play("p", "parts", {"index": 0}, seed=1), limits or Limits())
    (trajectory,) = asyncio.run(episode)
    return trajectory


def test_an_episode_is_what_was_said_and_paid() -> None:
    engine = says(CALL, "7")
    done = play(Parts(), engine)
    assert (done.reward, done.outcome, done.stop_reason) == (1.0, Outcome.correct, StopReason.completed)
    assert [turn.message.text for turn in done.turns] == ["", "7"]
    assert done.turns[0].observations[0].text == "7"
    assert done.turns[1].parent == done.turns[0].id
    # the second prompt is the first one, what was sampled, and what the env added: token for token
    first, second = (ids for ids, _, _ in engine.calls)
    assert second[: len(first)] == first
    assert second[len(first) :] == [*done.turns[0].completion.ids, *done.turns[1].context_ids]
    assert engine.released == ["p"]


@pytest.mark.parametrize(
    ("limits", "replies", "reason"),
    [
        (Limits(turns=1), (CALL, "7"), StopReason.max_turns),
        (Limits(message_tokens=4), (CALL, "7"), StopReason.max_tokens),
        (Limits(episode_tokens=len(CALL) + 1), (CALL, "7"), StopReason.max_tokens),
    ],
)
def test_a_limit_truncates_and_what_is_there_is_scored(limits: Limits, replies: Any, reason: StopReason) -> None:
    done = play(Parts(), says(*replies), limits)
    assert (done.stop_reason, done.reward, done.outcome) == (reason, 0.0, Outcome.incorrect)
    assert done.error is None


class Counted(Parts):
    """Half way there when the nuts are counted, and there with the answer."""

    def progress(self, episode: ag.Episode) -> float:
        return 1.0 if episode.answer == "7" else len(episode.calls) / 2


def test_scores_of_states_are_noted_where_the_env_reports_them() -> None:
    env = Counted()
    done = play(env, says(CALL, "7"))
    assert (done.start_score, [turn.score for turn in done.turns]) == (None, [None, None])
    env.use_score("env")
    done = play(env, says(CALL, "7"))
    assert (done.start_score, [turn.score for turn in done.turns]) == (0.0, [0.5, 1.0])
    assert done.reward == 1.0, "a score is no reward"
    cut = play(env, says(CALL, "7"), Limits(turns=1))
    assert [turn.score for turn in cut.turns] == [0.5]
    cut = play(env, says(CALL, CALL), Limits(episode_tokens=len(CALL) + 9))
    assert [turn.score for turn in cut.turns] == [0.5, 0.5], "of a message that was cut off: as the state was left"


def dawdling() -> ScriptedEngine:
    """Ten calls, each in good time."""
    return ScriptedEngine([[*map(ord, CALL), END]] * 10, delay=0.02)


def test_time_runs_out() -> None:
    done = play(Parts(), dawdling(), Limits(seconds=0.1))
    assert (done.stop_reason, done.outcome) == (StopReason.timeout, Outcome.incorrect)


class Slow(Parts):
    """Takes its time to reset."""

    async def areset(self, **kwargs: Any) -> Start:
        await asyncio.sleep(5)
        return await super().areset(**kwargs)


def test_an_env_that_does_not_reset_in_time_is_unscored() -> None:
    done = play(Slow(), says("7"), Limits(seconds=0.05))
    assert (done.reward, done.outcome) == (None, Outcome.unscored)
    assert (done.error or "").startswith("timeout: the env did not reset")


class Broken(Parts):
    """Raises at one place."""

    def __init__(self, where: str):
        super().__init__()
        self.where = where

    def _maybe(self, where: str) -> None:
        if self.where == where:
            raise ZeroDivisionError(f"in {where}")

    def setup(self, episode: ag.Episode) -> None:
        self._maybe("setup")

    def reward(self, task: ag.Task, answer: str, episode: ag.Episode) -> float:
        self._maybe("reward")
        return super().reward(task, answer, episode)

    async def areset(self, **kwargs: Any) -> Start:
        self._maybe("reset")
        return await super().areset(**kwargs)

    async def astep(self, message: Message) -> Step:
        self._maybe("step")
        return await super().astep(message)


@pytest.mark.parametrize("where", ["setup", "reset", "step", "reward"])
def test_a_failing_env_leaves_an_unscored_episode_that_says_why(where: str) -> None:
    done = play(Broken(where), says(CALL, "7"))
    assert done.reward is None
    assert (done.outcome, done.stop_reason) == (Outcome.unscored, StopReason.fault)
    assert f"ZeroDivisionError: in {where}" in (done.error or "")


@pytest.mark.parametrize(
    "limits", [Limits(turns=1), Limits(message_tokens=4), Limits(seconds=0.1)], ids=["turns", "tokens", "seconds"]
)
def test_a_limit_whose_episode_cannot_be_scored_is_unscored(limits: Limits) -> None:
    engine = dawdling() if limits.seconds < 1 else says(CALL)
    done = play(Broken("reward"), engine, limits)
    assert (done.reward, done.outcome, done.stop_reason) == (None, Outcome.unscored, StopReason.fault)
    assert (done.error or "").startswith("verifier_error: ")


@ag.tool
def crash() -> str:
    """Raises what a tool's own code may."""
    raise ZeroDivisionError("in the tool")


@ag.tool
def unplugged() -> str:
    """Says that its machinery is broken."""
    raise ToolFault("its server is down")


def test_what_a_tool_raises_is_an_observation_and_a_fault_of_its_machinery_no_score() -> None:
    class Tools(Parts):
        tools = (crash, unplugged)

    said = play(Tools(), says('<tool_call>{"name": "crash", "arguments": {}}</tool_call>', "7"))
    assert said.turns[0].observations[0].text == "error: ZeroDivisionError: in the tool"
    assert (said.reward, said.metrics["tool_errors"]) == (1.0, 1)
    down = play(Tools(), says('<tool_call>{"name": "unplugged", "arguments": {}}</tool_call>', "7"))
    assert (down.reward, down.error) == (None, "tool_error: its server is down")


def test_a_failing_engine_leaves_an_unscored_episode_with_its_turns() -> None:
    done = play(Parts(), says(CALL))  # no reply is left for the second turn
    assert done.reward is None
    assert len(done.turns) == 1
    assert (done.error or "").startswith("engine_error: script: no reply is left")


def test_a_template_that_rewrites_its_past_starts_a_branch() -> None:
    done = play(Parts(), says(CALL, "7"), renderer=Letters(rewrites=True))
    assert [turn.parent for turn in done.turns] == [None, None]
    assert done.metrics["rewrites"] == 1
    assert done.reward == 1.0


def collect(
    make_env: Callable[[str], Any], engine: Any, request: GroupRequest, concurrency: int = 8, retries: int = 0
) -> Any:
    agent = Agent(engine, Letters(), get_parser("hermes"))
    collector = Collector(agent, make_env, Limits(), concurrency=concurrency, retries=retries)

    async def run() -> Any:
        group = await collector.play_group(request)
        await collector.aclose()
        return group

    return asyncio.run(run())


def test_one_broken_episode_leaves_the_others_of_its_group() -> None:
    calls = iter(range(100))

    def answer(ids: list[int], params: Any) -> list[int]:
        if next(calls) == 1:
            raise EngineFault("gone")
        return [ord("7"), END]

    group = collect(lambda _: Parts(), ScriptedEngine(answer), GroupRequest("0:nuts", "parts", 0, 4, seed=0))
    assert sorted(str(t.reward) for t in group.trajectories) == ["1.0", "1.0", "1.0", "None"]
    assert group.task_id == "nuts"
    assert [t.episode for t in group.trajectories] == [0, 1, 2, 3]


def test_a_fault_is_played_again_in_a_fresh_env_with_other_draws() -> None:
    made: list[Parts] = []
    seeds: list[int] = []

    def make(_: str) -> Parts:
        made.append(Parts() if len(made) > 1 else Broken("step"))
        return made[-1]

    def answer(ids: list[int], params: Any) -> list[int]:
        seeds.append(params.seed)
        return [ord("7"), END]

    request = GroupRequest("0:nuts", "parts", 0, 2, seed=0)
    group = collect(make, ScriptedEngine(answer), request, concurrency=1, retries=2)
    assert [t.reward for t in group.trajectories] == [1.0, 1.0]
    assert [t.error for t in group.trajectories] == [None, None]
    assert [t.metrics.get("fault/env_error", 0) for t in group.trajectories] == [2, 0]
    assert (len(made), len(set(seeds))) == (3, 4), "the env that worked plays the second episode, too"
    assert [t.id for t in group.trajectories] == ["0:nuts/0", "0:nuts/1"]


def test_after_its_retries_an_episode_is_unscored() -> None:
    request = GroupRequest("0:nuts", "parts", 0, 2, seed=0)
    engine = ScriptedEngine(lambda ids, params: [ord("7"), END])
    group = collect(lambda _: Broken("reward"), engine, request, retries=2)
    assert [(t.reward, t.metrics["fault/verifier_error"]) for t in group.trajectories] == [(None, 3), (None, 3)]
    assert group_metrics([group])["fault/verifier_error"] == 6
    assert group_metrics([group])["unscored"] == 2


def test_a_broken_env_is_not_used_again_even_if_it_cannot_be_closed() -> None:
    made: list[Parts] = []

    class Stuck(Broken):
        async def aclose(self) -> None:
            raise OSError("stuck")

    def make(_: str) -> Parts:
        made.append(Parts() if made else Stuck("step"))
        return made[-1]

    request = GroupRequest("0:nuts", "parts", 0, 3, seed=0)
    group = collect(make, ScriptedEngine(lambda ids, params: [ord("7"), END]), request, concurrency=1)
    assert [t.reward for t in group.trajectories] == [None, 1.0, 1.0]
    assert len(made) == 2


def test_an_env_that_cannot_be_made_leaves_unscored_episodes() -> None:
    made = iter(range(100))

    def make(_: str) -> Parts:
        if next(made) == 0:
            raise OSError("no such database")
        return Parts()

    engine = ScriptedEngine(lambda ids, params: [ord("7"), END])
    group = collect(make, engine, GroupRequest("0:nuts", "parts", 0, 3, seed=0))
    assert [t.reward for t in group.trajectories] == [None, 1.0, 1.0]
    assert group.trajectories[0].error == "env_error: make: OSError: no such database"
    assert group.task_id == "nuts", "known from those that began"


def test_no_more_episodes_at_once_than_allowed_and_envs_are_reused() -> None:
    made: list[Parts] = []
    running = most = 0

    class Counting(ScriptedEngine):
        async def generate(self, *args: Any, **kwargs: Any) -> Any:
            nonlocal running, most
            running += 1
            most = max(most, running)
            try:
                return await super().generate(*args, **kwargs)
            finally:
                running -= 1

    def make(_: str) -> Parts:
        made.append(Parts())
        return made[-1]

    engine = Counting(lambda ids, params: [ord("7"), END], delay=0.002)
    group = collect(make, engine, GroupRequest("0:nuts", "parts", 0, 12, seed=0), concurrency=3)
    assert most == 3
    assert len(made) == 3
    assert len(group.trajectories) == 12


def test_an_episodes_seed_depends_on_its_request_alone() -> None:
    request = GroupRequest("0:a", "env", 0, 4, seed=3)
    seeds = {episode_seed(request, i) for i in range(4)}
    assert len(seeds) == 4
    assert episode_seed(GroupRequest("0:a", "env", 9, 8, seed=3), 2) == episode_seed(request, 2)
    assert episode_seed(GroupRequest("1:a", "env", 0, 4, seed=3), 2) not in seeds
