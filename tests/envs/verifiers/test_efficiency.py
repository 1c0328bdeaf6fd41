"""Less said is paid more, but only to those who are right, and never so that order flips."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.config import load_config
from agentgym.envs.script import call, say
from agentgym.envs.verifiers.efficiency import Efficiency
from agentgym.errors import ConfigError
from agentgym.rollout.worker import env_factory
from agentgym.types import Message, Outcome, Task, Trajectory
from tests.envs.verifiers.trajectories import trajectory, turn

TASK = Task("t", "?")


def episode(tokens: int, outcome: Outcome = Outcome.correct) -> Trajectory:
    return trajectory(turn(say("7"), tokens), outcome=outcome)


def test_the_right_ones_are_compared_with_each_other() -> None:
    wrong = Outcome.incorrect
    group = [episode(10), episode(20), episode(30), episode(1, wrong), episode(90, wrong)]
    assert Efficiency()(TASK, group) == [1.0, 0.5, 0.0, 0.0, 0.0]


def test_nothing_to_tell_apart() -> None:
    assert Efficiency()(TASK, [episode(10), episode(10), episode(3, Outcome.incorrect)]) == [1.0, 1.0, 0.0]
    assert Efficiency()(TASK, [episode(10)]) == [1.0]
    assert Efficiency()(TASK, [episode(3, Outcome.incorrect)]) == [0.0]


def test_slack() -> None:
    group = [episode(10), episode(15), episode(20), episode(25)]
    assert Efficiency(slack=0.5)(TASK, group) == [1.0, 1.0, 0.5, 0.0]
    assert Efficiency(slack=2)(TASK, group) == [1.0] * 4


def test_a_busy_tool_is_not_the_agents_doing() -> None:
    asked = call("lookup", item="pear")
    once = trajectory(turn(asked, 20, "37"), turn(say("37"), 5))
    retried = trajectory(turn(asked, 20, "busy"), turn(asked, 20, "37"), turn(say("37"), 5))
    repeated = trajectory(turn(asked, 20, "37"), turn(asked, 20, "37"), turn(say("37"), 5))
    assert Efficiency()(TASK, [once, retried, repeated]) == [1.0, 1.0, 0.0]
    assert Efficiency(excused=())(TASK, [once, retried, repeated]) == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(("measure", "length"), [("tokens", 12), ("turns", 2), ("calls", 2), ("characters", 35)])
def test_measures(measure: str, length: int) -> None:
    two = Message("assistant", "", tool_calls=(*call("a", x=1).tool_calls, *call("bb", y=22).tool_calls))
    played = trajectory(turn(two, 7, "busy", "4"), turn(Message("assistant", "seven", reasoning="hm, let me"), 5))
    assert Efficiency(measure).length(played) == length


@given(st.lists(st.tuples(st.integers(0, 5000), st.booleans()), min_size=1, max_size=16))
def test_no_wrong_answer_is_paid_and_no_right_one_is_fined(group: list[tuple[int, bool]]) -> None:
    played = [episode(n, Outcome.correct if right else Outcome.incorrect) for n, right in group]
    for (_, right), value in zip(group, Efficiency()(TASK, played), strict=True):
        assert 0 <= value <= (1 if right else 0)


@pytest.mark.parametrize(
    ("rewards", "says"),
    [
        ({"efficency": 0.2}, "unknown grader 'efficency'; did you mean 'efficiency'"),
        ({"efficiency": "much"}, "expected a weight"),
        ({"efficiency": {"measure": "words"}}, "must be one of tokens, characters, turns, calls"),
        ({"efficiency": {"slack": -1}}, "0 or more"),
        ({"efficiency": {"target": 3}}, "unexpected keyword argument 'target'"),
        ({"reward": 1}, "unknown grader"),
    ],
)
def test_bad_settings(rewards: Any, says: str) -> None:
    config = load_config(None, {"env": {"id": "agentgym/Store-v0", "rewards": rewards}})
    with pytest.raises(ConfigError, match=says):
        env_factory(config)("agentgym/Store-v0")


def test_the_recipe_adds_it_to_the_envs_own_reward() -> None:
    config = load_config("store-brief")
    env = env_factory(config)(config.env.id)
    assert env.rubric.has_groups
    assert env.fresh().rubric.has_groups
    assert env.rubric.total({"reward": 1.0, "efficiency": 1.0}) == 1 + config.env.rewards["efficiency"]
    off = load_config("store-brief", ["env.rewards.efficiency=0"])
    assert env_factory(off)(off.env.id).rubric.total({"reward": 1.0, "efficiency": 1.0}) == 1.0
