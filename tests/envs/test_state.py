"""Episodes saved in the middle, and gone on with."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentgym as ag
from agentgym.envs.script import call, say
from agentgym.errors import EnvFault
from agentgym.registry import BUILT_IN, make_env
from agentgym.tools.driving import drive
from agentgym.types import Message, Outcome


def go_on(env: Any, messages: list[Message]) -> list[Any]:
    """What the env answers to them, up to the end of the episode."""
    steps: list[Any] = []
    for message in messages:
        if steps and steps[-1].done:
            break
        steps.append(drive(env.astep(message)))
    return steps


LOOKS = ("apple", "banana", "nothing of the kind", "tea")
moves = st.lists(
    st.one_of(
        st.sampled_from(LOOKS).map(lambda item: call("lookup", item=item)),
        st.sampled_from(("2*3", "1+", "99*99+1")).map(lambda text: call("calculator", expression=text)),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**31), played=moves, left=moves, drawn=st.booleans())
def test_the_same_messages_from_a_restored_state_go_alike(
    seed: int, played: list[Message], left: list[Message], drawn: bool
) -> None:
    env = make_env("agentgym/Store-v0", args={"busy": 0.5})
    drive(env.areset(seed=seed, options={} if drawn else {"index": seed % 100}))
    go_on(env, played)
    state = env.get_state()
    left = [*left, say("7")]
    first = go_on(env, left)
    assert go_on(_at(env, state), left) == first, "in the same env, after the end"
    other = make_env("agentgym/Store-v0")
    assert go_on(_at(other, pickle.loads(pickle.dumps(state))), left) == first, "in another one, by way of a file"
    assert other.episode.messages == env.episode.messages


def _at(env: Any, state: Any) -> Any:
    env.set_state(state)
    return env


@pytest.mark.parametrize("env_id", sorted(BUILT_IN))
def test_every_env_can_be_forked_in_the_middle_of_gold(env_id: str) -> None:
    env = make_env(env_id)
    start = drive(env.areset(seed=5, options={"index": 1}))
    gold = env.expert(start.task, 5, "gold")
    first = gold(start.messages)
    if first.tool_calls:
        drive(env.astep(first))
    one, two = env.fork(2)
    try:
        said, steps = [], []
        while not steps or not steps[-1].done:
            said.append(gold(one.episode.messages))
            steps.append(drive(one.astep(said[-1])))
        assert steps[-1].outcome is Outcome.correct
        assert go_on(two, said) == go_on(env, said) == steps
        assert one.episode.messages == two.episode.messages == env.episode.messages
    finally:
        for each in (one, two, env):
            each.close()


def test_branches_do_not_touch_each_other() -> None:
    env = make_env("agentgym/Store-v0", args={"busy": 0.0})
    drive(env.areset(seed=1, options={"index": 1}))
    one, two = env.fork(2)
    one.episode.state["prices"]["apple"] = 10_000
    assert two.episode.state["prices"]["apple"] == env.episode.state["prices"]["apple"] < 100
    drive(one.astep(call("lookup", item="pear")))
    assert (one.episode.turns, two.episode.turns, env.episode.turns) == (1, 0, 0)
    assert one.episode.rng is one.np_random is not env.np_random


def test_each_turns_pay_goes_with_the_state() -> None:
    def words(task: ag.Task, text: str, episode: ag.Episode) -> float:
        return float(len(text))

    parts = [ag.Component(words, "words", per_turn=True)]
    env = ag.ToolEnv([("Q", "A"), ("R", "B")], tools=["calculator"], reward=parts, holdout=0)
    drive(env.areset(seed=0, options={"index": 0}))
    drive(env.astep(Message("assistant", "abc", tool_calls=call("calculator", expression="1").tool_calls)))
    (fork,) = env.fork()
    assert drive(fork.astep(say("de"))).components == {"words": 5.0}
    assert drive(env.astep(say("d"))).components == {"words": 4.0}


def test_variables_of_an_interpreter_are_there_again() -> None:
    env = make_env("agentgym/PythonMath-v0")
    drive(env.areset(seed=0, options={"index": 0}))
    drive(env.astep(call("python", code="x = 20\nx + 1")))
    state = env.get_state()
    assert state.how == "replay"
    (fork,) = env.fork()
    try:
        assert drive(fork.astep(call("python", code="x = x + 2\nx"))).messages[0].text == "22"
        assert drive(env.astep(call("python", code="x"))).messages[0].text == "20", "each has its own"
    finally:
        fork.close()
        env.close()


def test_files_of_a_sandbox_are_copied() -> None:
    env = ag.ToolEnv([("Q", "A"), ("R", "B")], tools=["write_file", "read_file", "shell"], holdout=0)
    drive(env.areset())
    drive(env.astep(call("write_file", path="a/b.txt", text="one")))
    state = env.get_state()
    assert state.how == "files"
    other = env.fresh()
    try:
        drive(env.astep(call("write_file", path="a/b.txt", text="two")))
        other.set_state(state)
        assert "one" in drive(other.astep(call("read_file", path="a/b.txt"))).messages[0].text
        drive(env.astep(call("shell", command="true")))
        with pytest.raises(EnvFault, match="begun without a seed"):
            env.get_state()
    finally:
        env.close()
        other.close()


def test_tools_that_answer_otherwise_are_no_fork() -> None:
    env = ag.ToolEnv([("Q", "A"), ("R", "B")], tools=["python"], holdout=0)
    drive(env.areset(seed=1))
    drive(env.astep(call("python", code="import os\nos.urandom(8)")))
    try:
        with pytest.raises(EnvFault, match="played again, the episode is another: a tool says"):
            env.fork()
    finally:
        env.close()


def test_what_cannot_be_saved_is_told() -> None:
    env = ag.ToolEnv([("Q", "A"), ("R", "B")], holdout=0)
    with pytest.raises(EnvFault, match="no episode is under way"):
        env.get_state()
    drive(env.areset(seed=0))
    assert env.episode is not None
    env.episode.state["lock"] = threading.Lock()
    with pytest.raises(EnvFault, match=r"cannot be copied.*episode.state\['lock'\], a lock"):
        env.get_state()
    drive(env.astep(say("A")))
    with pytest.raises(EnvFault, match="no episode is under way"):
        env.get_state()


def test_a_timeout_goes_on_with_what_was_left() -> None:
    env = ag.ToolEnv([("Q", "A"), ("R", "B")], tools=["calculator"], timeout=1000, holdout=0)
    drive(env.areset(seed=0))
    state = env.get_state()
    assert 900 < state.seconds <= 1000
    env.set_state(state)
    assert drive(env.astep(say("A"))).done
