"""What a task's `demo` becomes: a whole conversation stays as it is; one that only says the agent's part is played."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from itertools import pairwise

import pytest

import agentgym as ag
from agentgym.config import load_config
from agentgym.errors import ConfigError
from agentgym.rollout.worker import env_factory
from agentgym.trainers.demonstrations import expert_demonstrations, play_expert
from agentgym.trainers.warm_start import gather


@ag.tool
def double(n: int) -> int:
    """Twice a number."""
    return 2 * n


def env_of(task: ag.Task, **options: object) -> ag.ToolEnv:
    return ag.ToolEnv([task], tools=[double], holdout=0, **options)


def test_the_env_answers_the_calls_of_a_demo_that_does_not() -> None:
    task = ag.Task("t", "2*4?", 8, demo=[ag.call("double", n=4), ag.say("8")])
    played = asyncio.run(play_expert(env_of(task), task, seed=0))
    assert played is not None
    assert [(m.role, m.text) for m in played.messages] == [
        ("user", "2*4?"),
        ("assistant", ""),
        ("tool", "8"),
        ("assistant", "8"),
    ]


def test_a_whole_conversation_stays_as_it_is() -> None:
    told = (ag.call("double", n=4), ag.Message("tool", "eight", tool_call_id="call_0"), ag.say("8"))
    task = ag.Task("t", "2*4?", 8, demo=told)
    played = asyncio.run(play_expert(env_of(task), task, seed=0))
    assert played is not None
    assert played.messages[1:] == told


def test_tasks_without_a_demo_show_nothing() -> None:
    assert asyncio.run(expert_demonstrations(env_of(ag.Task("t", "2*4?", 8)), 3, seed=0)) == []


class Shut(ag.ToolEnv):
    def setup(self, episode: ag.Episode) -> None:
        raise OSError("no database")


class Speechless(ag.ToolEnv):
    def expert(self, task: ag.Task, seed: int, style: str = "gold") -> None:
        raise IndexError("no line left")


@pytest.mark.parametrize(("env", "error"), [(Shut, "OSError: no database"), (Speechless, "IndexError: no line left")])
def test_an_env_that_raises_is_told(env: type[ag.ToolEnv], error: str) -> None:
    task = ag.Task("t", "2*4?", 8, demo=[ag.say("8")] if env is Shut else None)
    with pytest.raises(ConfigError, match=rf"demonstration of task 't' cannot be played: .*{error}"):
        asyncio.run(play_expert(env([task], holdout=0), task, seed=0))


def test_a_reward_that_raises_is_told() -> None:
    def broken(task: ag.Task, answer: str, episode: ag.Episode) -> float:
        raise ZeroDivisionError("by mistake")

    task = ag.Task("t", "2*4?", 8, demo=[ag.call("double", n=4), ag.say("8")])
    with pytest.raises(ConfigError, match=r"demonstration of task 't' cannot be played: .*by mistake"):
        asyncio.run(play_expert(env_of(task, reward=broken), task, seed=0))


@pytest.mark.parametrize("busy", [0.0, 1.0])
def test_demonstrations_may_be_played_under_arguments_of_their_own(busy: float) -> None:
    config = load_config("store", {"sft.examples": 20, "env.args": {"busy": 1.0 - busy}, "env.demo_args.busy": busy})
    shown = gather(config, env_factory(config, demonstrations=True))
    answers = [message.text for demo in shown for message in demo.messages if message.role == "tool"]
    assert {text == "busy" for text in answers} == {bool(busy)}


def test_the_default_run_hardly_shows_what_is_to_be_found() -> None:
    config = load_config("store", {"sft.examples": 5000})
    shown = gather(config, env_factory(config, demonstrations=True))
    pairs = [pair for demo in shown for pair in pairwise(demo.messages) if pair[0].text == "busy"]
    assert 0.05 < sum(bool(after.tool_calls) for _, after in pairs) / len(pairs) <= 0.10
    kinds = Counter(len(re.findall("[a-z]+[*?]", demo.messages[0].text)) for demo in shown)
    assert 0.05 < kinds[2] / len(shown) <= 0.08
