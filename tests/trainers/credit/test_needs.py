"""Credit that needs turn rewards, scores or answers on envs that have none."""

from __future__ import annotations

from typing import Any

import pytest

from agentgym.config import load_config
from agentgym.envs.rubric import Component
from agentgym.envs.store import StoreEnv
from agentgym.envs.tool_env import ToolEnv
from agentgym.errors import ConfigError
from agentgym.rollout.worker import env_factory
from agentgym.trainers.credit.needs import EPISODES, TurnRewardWatch, check_needs
from agentgym.types import Task
from tests.trainers.credit.builders import group, played

TASKS = [Task("t", "Say it.", "it")]


def config(*keys: str) -> Any:
    return load_config(None, [f"--{key}" for key in keys])


def test_turn_needs_turns_that_are_paid() -> None:
    turn = config("trainer.credit=turn")
    with pytest.raises(
        ConfigError, match=r"'turn' needs rewards of single turns, and store pays at the end only.*rloo"
    ):
        check_needs(turn, "store", StoreEnv())
    check_needs(config(), "store", StoreEnv())
    check_needs(config("trainer.credit=gigpo"), "store", StoreEnv())
    paid = StoreEnv()
    paid.use_rewards(progress=0.5)
    check_needs(turn, "store", paid)
    check_needs(turn, "own", ToolEnv(TASKS, reward=[Component(lambda *_: 1.0, "polite", 0.1, per_turn=True)]))
    check_needs(turn, "other", object())  # nothing is known of it: the run is watched
    check_needs(config("trainer.credit=turn", "rollout.agent=a.py:play"), "store", StoreEnv())
    check_needs(config("trainer.credit=turn", "trainer.control=rejection_sampling"), "store", StoreEnv())


def test_the_configuration_makes_envs_report_what_its_credit_needs() -> None:
    for key, asked in (("env", True), ("consistency", True), ("gold", False)):
        env = env_factory(config("trainer.credit=progress", f"credit.score={key}"))("agentgym/Store-v0")
        assert (env._state_score is not None) == asked
    assert env_factory(config("credit.score=env"))("agentgym/Store-v0")._state_score is None
    with pytest.raises(ConfigError, match="GSM8KToolEnv reports no progress"):
        env_factory(config("trainer.credit=progress", "env.id=agentgym/GSM8KTool-v0"))("agentgym/GSM8KTool-v0")
    paid = env_factory(config("trainer.credit=turn", "env.rewards={progress = 0.5}"))("agentgym/Store-v0")
    check_needs(config("trainer.credit=turn"), "store", paid)


def test_a_likelihood_needs_answers() -> None:
    gold = config("trainer.credit=progress", "credit.score=gold")
    check_needs(gold, "own", ToolEnv(TASKS))
    with pytest.raises(ConfigError, match=r"task train-0 of store has no answer"):
        check_needs(gold, "store", StoreEnv())


def test_a_run_without_turn_rewards_is_told_once_and_in_time() -> None:
    watch = TurnRewardWatch("turn")
    unpaid = group(*[played([0, 1])] * 32, played([1]), played([0, 0], scored=False))
    told = [watch.warnings([unpaid], step) for step in range(1, 12)]
    assert [bool(text) for text in told] == [step * 32 == EPISODES for step in range(1, 12)]
    assert "none was paid before its last one" in told[7][0]
    rare = TurnRewardWatch("turn")
    assert not any(rare.warnings([unpaid], step) for step in range(1, 8))
    assert not rare.warnings([group(played([0.1, 0]), *[played([0, 1])] * 40)], 8)
    assert not any(rare.warnings([unpaid], step) for step in range(9, 30)), "turns are paid, if seldom"
    assert not any(TurnRewardWatch("grpo").warnings([unpaid], step) for step in range(1, 12))
