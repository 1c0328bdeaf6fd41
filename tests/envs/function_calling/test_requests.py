"""The generated requests: their kinds, what is right, and how the players play."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from agentgym.envs.function_calling.env import FunctionCallingEnv
from agentgym.envs.function_calling.requests import GIVEN_UP, KINDS, NONE
from agentgym.envs.script import call, say
from agentgym.protocols import Step
from agentgym.tools.driving import drive
from agentgym.types import Message, Outcome, ToolCall


def start(kind: str, seed: int = 0, **options: Any) -> FunctionCallingEnv:
    env = FunctionCallingEnv(**options)
    drive(env.areset(seed=seed, options={"index": KINDS.index(kind)}))
    return env


def say_to(env: FunctionCallingEnv, message: Message) -> Step:
    return drive(env.astep(message))


def gold(env: FunctionCallingEnv) -> Message:
    assert env.episode is not None
    return env.expert(env.episode.task, 0)(env.episode.messages)


def numbers(step: Step) -> str:
    return " ".join(message.text for message in step.messages)


@pytest.mark.parametrize("kind", KINDS)
def test_tasks_offer_the_functions_of_one_family(kind: str) -> None:
    env = start(kind)
    assert env.episode is not None
    task = env.episode.task
    assert task.kind == kind
    names = {schema["function"]["name"] for schema in env.episode.tools}
    assert names == set(task.metadata["functions"])
    assert len(names) == (1 if kind == "single" else 2)
    assert len(task.answer) == (2 if kind == "two_turns" else 1)
    assert len(task.answer[0]) == {"parallel": 2, "irrelevant": 0}.get(kind, 1)


def test_calls_with_other_arguments_are_wrong() -> None:
    for changed, reward in (({}, 1.0), ({"day": "Sunday"}, 0.0), ({"time": "3:33"}, 0.0)):
        env = start("single")
        right = gold(env).tool_calls[0]
        step = say_to(env, call(right.name, "c", **{**right.arguments, **changed}))
        assert not step.done
        end = say_to(env, say(numbers(step)))
        assert end.reward == reward
        assert end.terminated


def test_numbers_have_to_be_told_and_are_not_known_without_a_call() -> None:
    env = start("single")
    step = say_to(env, gold(env))
    assert say_to(env, say(f"It is {numbers(step)}.")).reward == 0
    env = start("single")
    say_to(env, gold(env))
    assert say_to(env, say(NONE)).reward == 0
    assert say_to(start("single"), say(NONE)).reward == 0


def test_one_call_too_many_is_wrong_and_a_refused_one_does_not_count() -> None:
    env = start("single")
    right = gold(env)
    told = numbers(say_to(env, right)) + " " + numbers(say_to(env, right))
    assert say_to(env, say(told)).reward == 0
    env = start("single")
    refused = say_to(env, call("set_alarm", "x", day="Monday"))
    assert "'time' is missing" in refused.messages[0].text
    assert say_to(env, say(numbers(say_to(env, right)))).reward == 1


def test_both_parallel_calls_in_any_order_in_one_message_or_two() -> None:
    env = start("parallel")
    one, two = gold(env).tool_calls
    step = say_to(env, Message("assistant", "", tool_calls=(two, one)))
    first, second = (message.text for message in step.messages)
    assert say_to(env, say(f"{second} {first}")).reward == 1
    env = start("parallel")
    told = [numbers(say_to(env, Message("assistant", "", tool_calls=(made,)))) for made in (one, two)]
    assert say_to(env, say(" ".join(told))).reward == 1
    env = start("parallel")
    assert say_to(env, say(numbers(say_to(env, Message("assistant", "", tool_calls=(one,)))))).reward == 0


def test_what_no_function_serves_is_declined() -> None:
    assert say_to(start("irrelevant"), say(NONE)).outcome is Outcome.correct
    assert say_to(start("irrelevant"), say("")).reward == 0
    env = start("irrelevant")
    assert env.episode is not None
    name = env.episode.tools[0]["function"]["name"]
    arguments = {"drop_item": {"item": "nuts"}, "add_item": {"item": "nuts", "count": 2}}.get(name)
    if arguments:
        say_to(env, Message("assistant", "", tool_calls=(ToolCall("c", name, arguments),)))
        assert say_to(env, say(NONE)).reward == 0


def test_the_user_goes_on_after_the_first_answer() -> None:
    env = start("two_turns")
    assert env.episode is not None
    step = say_to(env, say(numbers(say_to(env, gold(env)))))
    assert not step.done
    (said,) = step.messages
    assert said == Message("user", env.episode.task.metadata["further"][0])
    end = say_to(env, say(numbers(say_to(env, gold(env)))))
    assert (end.reward, end.components) == (1.0, {"reward": 1.0, "turns_right": 1.0})


def test_each_turn_has_to_be_right_in_itself() -> None:
    env = start("two_turns")
    say_to(env, say(GIVEN_UP))
    end = say_to(env, say(numbers(say_to(env, gold(env)))))
    assert end.components == {"reward": 0.0, "turns_right": 0.5}


def test_an_episode_cut_off_in_its_first_turn_is_not_right() -> None:
    env = start("two_turns", max_turns=2)
    end = say_to(env, say(numbers(say_to(env, gold(env)))))
    assert end.truncated
    assert end.components == {"reward": 0.0, "turns_right": 0.5}


def test_demonstrations_give_up_often_and_make_both_calls_rarely(play: Callable[..., Any]) -> None:
    env = FunctionCallingEnv()
    count = 400
    ends = [play(env, "demo", seed=i, index=i) for i in range(count)]
    rates = {
        kind: sum(end[1].reward for end in ends[i :: len(KINDS)]) / (count / len(KINDS)) for i, kind in enumerate(KINDS)
    }
    assert all(0.3 < rates[kind] < 0.6 for kind in ("single", "multiple", "irrelevant"))
    assert all(0.02 < rates[kind] < 0.3 for kind in ("parallel", "two_turns"))

    def last(messages: Sequence[Message]) -> str:
        return messages[-1].text

    assert 0.4 < sum(last(end[2]) == GIVEN_UP for end in ends) / count < 0.8
