"""ToolEnv: limits, rewards, faults, tasks."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from agentgym.envs.rubric import Component
from agentgym.envs.script import call, say
from agentgym.envs.tool_env import ToolEnv
from agentgym.errors import ConfigError, DataError, EnvFault, SandboxFault, VerifierFault
from agentgym.protocols import Start, Step
from agentgym.tools import Episode, StopEpisode, tool
from agentgym.tools.driving import drive
from agentgym.types import Message, Outcome, StopReason, Task, ToolCall

Rows = list[Mapping[str, Any]]


@tool
def note(text: str, episode: Episode) -> str:
    """Note something."""
    episode.state.setdefault("notes", []).append(text)
    episode.count("notes")
    return f"noted {text}"


@tool
async def wait(seconds: float) -> str:
    """Wait."""
    await asyncio.sleep(seconds)
    return threading.current_thread().name


@tool
def give_up() -> str:
    """Stop."""
    raise StopEpisode("stopped")


def env_of(rows: Rows, **options: Any) -> ToolEnv:
    return ToolEnv(rows, tools=[note, wait, give_up, "calculator"], **options)


def bad_call(number: int = 0) -> Message:
    return Message("assistant", "", tool_calls=(ToolCall(f"c{number}", "note", {}, "invalid JSON"),))


def start(env: ToolEnv, **options: Any) -> Start:
    return drive(env.areset(seed=0, options=options or {"index": 0}))


def step(env: ToolEnv, message: Message) -> Step:
    return drive(env.astep(message))


def test_an_episode(rows: Rows) -> None:
    env = env_of(rows, system="Be brief.", holdout=0)
    begun = start(env, index=3)
    assert [m.role for m in begun.messages] == ["system", "user"]
    assert begun.messages[1].text == "What is 3+1?"
    assert [schema["function"]["name"] for schema in begun.tools] == ["note", "wait", "give_up", "calculator"]
    middle = step(env, call("note", text="hm"))
    assert [m.text for m in middle.messages] == ["noted hm"]
    assert not middle.done
    end = step(env, say(" 4 "))
    assert (end.reward, end.terminated, end.truncated) == (1.0, True, False)
    assert end.components == {"reward": 1.0}
    assert end.metrics == {"tool_calls": 1, "tool_errors": 0, "notes": 1}
    assert set(env.timing) == {"setup", "tools", "reward"}


@pytest.mark.parametrize(
    ("options", "lines", "reason"),
    [
        ({"max_turns": 2}, [call("note", text="a"), call("note", text="b")], StopReason.max_turns),
        ({"max_tool_calls": 1}, [call("note", text="a"), call("note", text="b")], StopReason.max_tool_calls),
        ({"max_parse_errors": 2}, [bad_call(), bad_call()], StopReason.parse_error),
        ({"timeout": 0.02}, [call("wait", seconds=5)], StopReason.timeout),
        ({}, [call("note", text="a"), call("give_up")], StopReason.tool_stopped),
        ({}, [say("4")], StopReason.completed),
    ],
)
def test_ends(rows: Rows, options: dict[str, Any], lines: list[Message], reason: StopReason) -> None:
    env = env_of(rows, **options)
    start(env)
    *before, end = [step(env, line) for line in lines]
    assert not any(earlier.done for earlier in before)
    assert end.stop_reason is reason
    assert (end.terminated, end.truncated) == (reason.terminated, not reason.terminated)
    assert end.outcome is Outcome.incorrect
    with pytest.raises(EnvFault, match="reset first"):
        step(env, say("x"))


def test_calls_beyond_the_limit_are_answered_but_not_run(rows: Rows) -> None:
    env = env_of(rows, max_tool_calls=1)
    start(env)
    both = tuple(ToolCall(f"c{i}", "note", {"text": str(i)}) for i in range(2))
    end = step(env, Message("assistant", "", tool_calls=both))
    assert [m.text for m in end.messages] == ["noted 0", "error: not run: a limit of this episode is reached"]
    assert [m.tool_call_id for m in end.messages] == ["c0", "c1"]
    assert end.metrics["notes"] == 1


def test_parse_errors_count_in_a_row(rows: Rows) -> None:
    env = env_of(rows, max_parse_errors=2)
    start(env)
    for line in (bad_call(), call("note", text="fine"), bad_call()):
        assert not step(env, line).done
    assert step(env, bad_call()).stop_reason is StopReason.parse_error


def test_a_message_with_calls_is_no_answer(rows: Rows) -> None:
    env = env_of(rows, max_turns=1, holdout=0)
    start(env, index=3)
    sly = Message("assistant", "4", tool_calls=(ToolCall("c", "note", {"text": "4"}),))
    assert step(env, sly).reward == 0


def test_a_limit_from_outside(rows: Rows) -> None:
    env = env_of(rows)
    start(env)
    end = drive(env.finish(StopReason.max_tokens))
    assert (end.truncated, end.stop_reason, end.outcome) == (True, StopReason.max_tokens, Outcome.incorrect)


# -- rewards -------------------------------------------------------------------------------------------------------


def test_reward_components_and_weights(rows: Rows) -> None:
    def score(task: Task, answer: str, episode: Episode) -> dict[str, float]:
        return {"right": answer == "4", "short": len(answer) < 5, "length": len(answer)}

    env = env_of(rows, reward=score, weights={"right": 0.8, "short": 0.2, "length": 0}, holdout=0)
    start(env, index=3)
    end = step(env, say("4"))
    assert end.reward == pytest.approx(1.0)
    assert end.components == {"right": 1.0, "short": 1.0, "length": 1.0}
    assert end.outcome is Outcome.correct
    start(env, index=3)
    end = step(env, say("5"))
    assert (end.reward, end.outcome) == (0.2, Outcome.incorrect)


def test_rewards_per_turn_add_up(rows: Rows) -> None:
    async def polite(task: Task, text: str, episode: Episode) -> float:
        await asyncio.sleep(0)
        return "please" in text

    parts = [Component(polite, "polite", 0.25, per_turn=True), Component(lambda t, a, e: a == "4 please", "right", 0.5)]
    env = env_of(rows, reward=parts, holdout=0)
    start(env, index=3)
    first = step(env, call("note", text="x"))
    second = step(env, Message("assistant", "please", tool_calls=(ToolCall("c", "note", {"text": "y"}),)))
    end = step(env, say("4 please"))
    assert [first.reward, second.reward, end.reward] == [0.0, 0.25, 0.75]
    assert end.components == {"polite": 2.0, "right": 1.0}
    assert end.outcome is Outcome.correct


def test_rewards_by_name_and_verdicts(rows: Rows) -> None:
    env = env_of(rows, reward={"a": lambda t, a, e: Outcome.correct, "b": lambda t, a, e: Outcome.unparsable})
    start(env)
    assert step(env, say("x")).components == {"a": 1.0, "b": 0.0}
    with pytest.raises(ConfigError, match="share a name"):
        env_of(rows, reward=[Component(len, "x"), Component(len, "x")])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (ValueError("boom"), "reward 'reward': ValueError: boom"),
        ("good", "expected a number, got str"),
        (float("nan"), "not a finite number"),
        (Outcome.error, "gave no verdict"),
    ],
)
def test_a_failing_reward_is_no_reward(rows: Rows, value: Any, text: str) -> None:
    def score(task: Task, answer: str, episode: Episode) -> Any:
        if isinstance(value, Exception):
            raise value
        return value

    env = env_of(rows, reward=score)
    start(env)
    with pytest.raises(VerifierFault, match=text):
        step(env, say("4"))
    env.reset(seed=0)
    with pytest.raises(VerifierFault, match=text):  # and through Gymnasium
        env.step("4")


def test_faults_of_setup_and_tools(rows: Rows) -> None:
    class Broken(ToolEnv):
        async def setup(self, episode: Episode) -> None:
            raise OSError("no database")

    with pytest.raises(EnvFault, match="setup: OSError: no database"):
        start(Broken(rows))

    @tool
    def crash() -> str:
        raise SandboxFault("gone")

    env = ToolEnv(rows, tools=[crash])
    start(env)
    with pytest.raises(SandboxFault):
        step(env, call("crash"))


# -- tasks ---------------------------------------------------------------------------------------------------------


def test_choosing_a_task(rows: Rows) -> None:
    env = env_of(rows, holdout=0)
    assert start(env, index=5).task.prompt == "What is 5+1?"
    assert start(env, task_id="7", split="test").task.id == "7"
    assert start(env, task={"question": "Q?", "answer": 1}).task.prompt == "Q?"
    one = drive(env.areset(seed=11)).task
    assert drive(env.areset(seed=11)).task is one
    assert len({drive(env.areset()).task.id for _ in range(30)}) > 10
    for options, text in (({"index": 40}, "no task 40"), ({"task_id": "x"}, "no task has the id 'x'")):
        with pytest.raises(DataError, match=text):
            start(env, **options)
    with pytest.raises(ConfigError, match="unknown split 'dev'"):
        start(env, split="dev")


def test_given_splits() -> None:
    env = ToolEnv({"train": [("a?", 1)], "test": [("b?", 2)]})
    assert [task.prompt for split in ("train", "test") for task in env.tasks(split)] == ["a?", "b?"]
    env = ToolEnv(lambda split: [(f"{split}?", 1)])
    assert env.tasks("test")[0].prompt == "test?"
    with pytest.raises(ConfigError, match="no split 'test'"):
        ToolEnv({"train": [("a?", 1)]}).tasks("test")
    with pytest.raises(ConfigError, match="ToolEnv has no tasks"):
        ToolEnv()


def test_options_are_checked(rows: Rows) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'max_turn'"):
        ToolEnv(rows, max_turn=3)
    with pytest.raises(ConfigError, match="max_turns must be a number from 0 on, got -1"):
        ToolEnv(rows, max_turns=-1)
    with pytest.raises(ConfigError, match="timeout must be a number from 0 on, got 'long'"):
        ToolEnv(rows, timeout="long")


def test_a_fresh_env_is_independent(rows: Rows) -> None:
    class Counting(ToolEnv):
        def setup(self, episode: Episode) -> None:
            self.secret = episode.rng.random()

        def reward(self, task: Task, answer: str, episode: Episode) -> float:
            return self.secret

    one = Counting(rows)
    two = one.fresh()
    start(one)
    drive(two.areset(seed=1, options={"index": 0}))
    assert one.secret != two.secret
    assert step(two, say("x")).reward == two.secret
    assert step(one, say("x")).reward == one.secret
    assert one.tasks() is two.tasks()


def test_demo_conversations_are_gold(play: Callable[..., Any]) -> None:
    demo = [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "c", "function": {"name": "calculator", "arguments": '{"expression": "1+1"}'}}],
        },
        {"role": "tool", "content": "2", "tool_call_id": "c"},
        {"role": "assistant", "content": "2"},
    ]
    env = ToolEnv([{"question": "1+1?", "answer": 2, "demo": demo}], tools=["calculator"])
    _, end, messages = play(env, "gold")
    assert end.reward == 1
    assert [m.role for m in messages] == ["user", "assistant", "tool", "assistant"]
