"""Pay over a whole group: when it is asked for, where it ends up, and what a failure of it means."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

import agentgym as ag
from agentgym.envs.rubric import Component
from agentgym.envs.tool_env import ToolEnv
from agentgym.errors import ConfigError
from agentgym.protocols import GroupPay, GroupScorer
from agentgym.rollout.agent import Agent
from agentgym.rollout.collector import Collector
from agentgym.rollout.episode import Limits
from agentgym.rollout.parsers import get_parser
from agentgym.rollout.record import from_row, to_row
from agentgym.types import Group, GroupRequest, Outcome, Trajectory
from tests.rollout.test_episode import Letters, says

TASKS = [ag.Task("nuts", "How many nuts?", "7")]


def group_of(env: Any, *answers: str, request: GroupRequest | None = None, limits: Limits | None = None) -> Group:
    """Play the first task once for each answer."""
    agent = Agent(says(*answers), Letters(), get_parser("hermes"))
    collector = Collector(agent, lambda _: env.fresh(), limits or Limits(), concurrency=1)
    return asyncio.run(collector.play_group(request or GroupRequest("g", "nuts", 0, len(answers), seed=0)))


def env_of(*parts: Component) -> ToolEnv:
    def right(task: ag.Task, answer: str, episode: ag.Episode) -> float:
        return float(answer == task.answer)

    return ToolEnv(TASKS, reward=[Component(right, "right"), *parts], holdout=0)


def shortest(task: ag.Task, trajectories: Sequence[Trajectory]) -> list[float]:
    assert task.id == "nuts"
    least = min(t.sampled_tokens for t in trajectories)
    return [float(t.sampled_tokens == least) for t in trajectories]


def test_it_is_paid_with_the_last_turn_and_changes_no_outcome() -> None:
    group = group_of(env_of(Component(shortest, "short", 0.5, per_group=True)), "7", "seven", "7", "77")
    assert [t.reward for t in group.trajectories] == [1.5, 0.0, 1.5, 0.0]
    assert [t.components for t in group.trajectories][:2] == [{"right": 1, "short": 1}, {"right": 0, "short": 0}]
    assert [t.outcome for t in group.trajectories][:2] == [Outcome.correct, Outcome.incorrect]
    for t in group.trajectories:
        assert t.reward == sum(turn.reward for turn in t.turns)
        assert from_row(to_row(t)).reward == t.reward


def test_weight_0_is_a_metric() -> None:
    group = group_of(env_of(Component(shortest, "short", 0.0, per_group=True)), "7", "77")
    assert [(t.reward, t.components["short"]) for t in group.trajectories] == [(1.0, 1.0), (0.0, 0.0)]


def test_by_task_id() -> None:
    request = GroupRequest("g", "nuts", "nuts", 1, seed=0)
    (t,) = group_of(env_of(Component(shortest, per_group=True)), "7", request=request).trajectories
    assert t.reward == 2.0


def test_unscored_episodes_are_left_out() -> None:
    seen: list[int] = []

    def count(task: ag.Task, trajectories: Sequence[Trajectory]) -> list[float]:
        seen.append(len(trajectories))
        return [1.0] * len(trajectories)

    def picky(task: ag.Task, answer: str, episode: ag.Episode) -> float:
        return 1 / float(answer)

    env = ToolEnv(TASKS, reward=[Component(picky, "one"), Component(count, "n", per_group=True)], holdout=0)
    group = group_of(env, "1", "0", "1")
    assert [t.reward for t in group.trajectories] == [2.0, None, 2.0]
    assert seen == [2]
    assert [t.reward for t in group_of(env, "0", "0").trajectories] == [None, None]
    assert seen == [2], "where none is scored there is nothing to compare"


def broken(task: ag.Task, trajectories: Sequence[Trajectory]) -> list[float]:
    raise RuntimeError("the judge is out")


async def hanging(task: ag.Task, trajectories: Sequence[Trajectory]) -> list[float]:
    await asyncio.sleep(60)
    return []


@pytest.mark.parametrize(
    ("fn", "says_why"),
    [
        (broken, "verifier_error: reward 'it': RuntimeError: the judge is out"),
        (hanging, "verifier_error: score_group: TimeoutError"),
        (lambda task, group: [1.0], "1 values for 2 episodes"),
        (lambda task, group: [1.0, float("nan")], "not a finite number"),
        (lambda task, group: [1.0, Outcome.error], "no verdict"),
        (lambda task, group: None, "TypeError"),
    ],
)
def test_a_failure_leaves_the_group_unscored(fn: Any, says_why: str) -> None:
    group = group_of(env_of(Component(fn, "it", per_group=True)), "7", "8", limits=Limits(seconds=0.5))
    for t in group.trajectories:
        assert (t.reward, t.outcome) == (None, Outcome.unscored)
        assert says_why in (t.error or "")


class Comparing:
    """An env of one's own that is no ToolEnv."""

    def __init__(self, env: ToolEnv):
        self.env = env

    def fresh(self) -> Comparing:
        return Comparing(self.env.fresh())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    async def score_group(self, trajectories: Sequence[Trajectory], options: Mapping[str, Any]) -> list[GroupPay]:
        assert options == {"index": 0, "split": "train"}
        return [GroupPay(i, {"place": i}) for i in range(len(trajectories))]


def test_any_env_may_compare() -> None:
    env = Comparing(env_of())
    assert isinstance(env, GroupScorer)
    assert [t.reward for t in group_of(env, "7", "7", "8").trajectories] == [1, 2, 2]


def test_names_and_kinds_of_parts_are_checked() -> None:
    with pytest.raises(ConfigError, match="either per turn or per group"):
        env_of(Component(shortest, "both", per_turn=True, per_group=True))
