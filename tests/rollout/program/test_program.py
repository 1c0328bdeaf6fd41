"""A program plays an episode over the endpoint: it ends as an episode of our own agent would, token for token."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as drawn
from hypothesis import strategies as st

from agentgym.engines.scripted import ScriptedEngine
from agentgym.errors import ConfigError, EngineFault
from agentgym.rollout.episode import Limits
from agentgym.rollout.program.function import GIVEN, make_program
from agentgym.rollout.record import from_row, to_row
from agentgym.rollout.renderer import ChatRenderer
from agentgym.tools.episode import Episode
from agentgym.types import Message, Outcome, StopReason, ToolCall
from tests.rollout.program.conftest import Parts

CALL = Message("assistant", tool_calls=(ToolCall("call_0", "count", {"part": "nuts"}),))


def test_a_program_plays_as_our_own_agent_would(given: Any, renderer: ChatRenderer) -> None:
    own = given.play(None, given.policy(renderer, CALL, "7"), renderer)
    engine = given.policy(renderer, CALL, "7")
    done = given.play(given.loop, engine, renderer)
    assert (done.reward, done.outcome, done.stop_reason) == (1.0, Outcome.correct, StopReason.completed)
    assert given.chain(done) == given.chain(own)
    assert done.messages == own.messages
    assert done.components == own.components
    assert done.error is None
    assert [params.seed for _, params, _ in engine.calls] == [5 * 1_000_003, 5 * 1_000_003 + 1]
    assert done.metrics["branches"] == 0
    assert {session for _, _, session in engine.calls} == {done.id}
    assert engine.released == [done.id]


class Counted(Parts):
    def progress(self, episode: Episode) -> float:
        return 1.0 if episode.answer == "7" else len(episode.calls) / 2


def test_scores_of_states_are_noted_as_for_our_own_agent(given: Any, renderer: ChatRenderer) -> None:
    env = Counted()
    env.use_score("env")
    for function in (None, given.loop):
        done = given.play(function, given.policy(renderer, CALL, "7"), renderer, env)
        assert (done.start_score, [turn.score for turn in done.turns]) == (0.0, [0.5, 1.0])


texts = st.text(st.characters(codec="utf-8", exclude_characters="<"), max_size=12)
replies = st.one_of(
    st.builds(lambda t: Message("assistant", t.strip(), tool_calls=CALL.tool_calls), texts),
    st.builds(
        lambda t: Message("assistant", t.strip(), reasoning="hm " + t.strip(), tool_calls=CALL.tool_calls), texts
    ),
    st.builds(
        lambda a, b: Message(
            "assistant",
            tool_calls=(ToolCall("call_0", "count", {"part": a}), ToolCall("call_1", "count", {"part": b})),
        ),
        texts,
        texts,
    ),
    st.just('<tool_call>{"name": "count", "arg'),
    st.just('<tool_call>{"name": "count", "arguments": {"part": 3}}</tool_call> so'),
)


@pytest.mark.parametrize("template", ["renderer", "showing_ids"])
def test_a_conversation_that_goes_on_has_the_tokens_of_our_own_agent(
    given: Any, template: str, request: pytest.FixtureRequest
) -> None:
    renderer = request.getfixturevalue(template)

    @settings(max_examples=12, suppress_health_check=list(HealthCheck))
    @drawn(st.lists(replies, max_size=4), texts)
    def check(said: list[Any], last: str) -> None:
        own = given.play(None, given.policy(renderer, *said, last.strip() or "7"), renderer)
        done = given.play(given.loop, given.policy(renderer, *said, last.strip() or "7"), renderer)
        assert given.chain(done) == given.chain(own)
        assert done.messages == own.messages
        assert (done.reward, done.stop_reason, done.outcome) == (own.reward, own.stop_reason, own.outcome)
        assert from_row(json.loads(json.dumps(to_row(done)))) is not None

    check()


def test_a_function_that_is_not_async_plays_in_a_thread(given: Any, renderer: ChatRenderer) -> None:
    def program(task: Any, session: Any, base_url: str, api_key: str) -> str:
        with httpx.Client(
            base_url=base_url, headers={"authorization": f"Bearer {api_key}"}, trust_env=False, verify=False
        ) as http:
            messages = [{"role": "user", "content": task.prompt}]
            for _ in range(2):
                body = {"messages": messages, "tools": session.tools}
                said = http.post("chat/completions", json=body).json()["choices"][0]["message"]
                messages.append(said)
                if said.get("tool_calls"):
                    call = said["tool_calls"][0]
                    result = session.call(call["function"]["name"], call["function"]["arguments"])
                    messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
        return str(said["content"])

    done = given.play(program, given.policy(renderer, CALL, "7"), renderer)
    assert (done.reward, len(done.turns)) == (1.0, 2)
    assert done.turns[1].parent == 0


def test_a_program_that_blocks_its_loop_blocks_neither_engine_nor_endpoint(given: Any, renderer: ChatRenderer) -> None:
    async def program(base_url: str, api_key: str) -> str:
        headers = {"authorization": f"Bearer {api_key}"}
        body = {"messages": [{"role": "user", "content": "How many?"}]}
        answer = httpx.post(f"{base_url}/chat/completions", json=body, headers=headers, trust_env=False, verify=False)
        return str(answer.json()["choices"][0]["message"]["content"])

    assert given.play(program, given.policy(renderer, "7"), renderer).reward == 1.0


# -- rewards ---------------------------------------------------------------------------------------------------------


def told(value: Any) -> Any:
    """A program that asks twice in one conversation and returns a value, or what a function of the ids says."""

    async def program(session: Any, base_url: str, api_key: str) -> Any:
        from httpx import AsyncClient

        ids, messages = [], [{"role": "user", "content": "How many?"}]
        async with AsyncClient(
            base_url=base_url, headers={"authorization": f"Bearer {api_key}"}, trust_env=False, verify=False
        ) as http:
            for _ in range(2):
                answer = (await http.post("chat/completions", json={"messages": messages})).json()
                ids.append(answer["id"])
                messages += [answer["choices"][0]["message"], {"role": "user", "content": "Sure?"}]
        return value(session, ids) if callable(value) else value

    return program


def rated(session: Any, ids: Any) -> None:
    session.reward(0.5, ids[0])
    session.reward(0.25)


@pytest.mark.parametrize(
    ("value", "turns", "outcome"),
    [
        ("7", [0.0, 1.0], Outcome.correct),
        ("8", [0.0, 0.0], Outcome.incorrect),
        (None, [0.0, 1.0], Outcome.correct),  # the last answer is the answer
        (0.25, [0.0, 0.25], Outcome.incorrect),
        (True, [0.0, 1.0], Outcome.correct),
        ({"style": 0.5, "right": 1}, [0.0, 1.5], Outcome.correct),
        (lambda session, ids: {ids[0]: 0.5, ids[1]: 1.0}, [0.5, 1.0], Outcome.correct),
        (lambda session, ids: {ids[0]: -1.0}, [-1.0, 0.0], Outcome.incorrect),
        (rated, [0.5, 0.25], Outcome.incorrect),
        (lambda session, ids: rated(session, ids) or "7", [0.5, 1.25], Outcome.correct),
    ],
)
def test_what_a_program_returns_is_its_reward_or_its_answer(
    given: Any, renderer: ChatRenderer, value: Any, turns: list[float], outcome: Outcome
) -> None:
    done = given.play(told(value), given.policy(renderer, "5", "7"), renderer)
    assert [turn.reward for turn in done.turns] == turns
    assert (done.reward, done.outcome, done.error) == (sum(turns), outcome, None)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), "it returned nan"),
        ([1], "it returned list ([1])"),
        ({"a": "b"}, "it returned str"),
        ({}, "empty dict"),
        (lambda session, ids: {ids[0]: float("inf")}, "it returned inf as a completion's reward"),
        (lambda session, ids: {ids[0]: "good"}, "it returned str ('good') as a completion's reward"),
        (lambda session, ids: session.reward(1, "chatcmpl-nobody"), "no completion 'chatcmpl-nobody'"),
    ],
)
def test_what_cannot_be_a_reward_is_unscored(given: Any, renderer: ChatRenderer, value: Any, words: str) -> None:
    done = given.play(told(value), given.policy(renderer, "5", "7"), renderer)
    assert (done.reward, done.outcome) == (None, Outcome.unscored)
    assert (done.error or "").startswith("program_error: ")
    assert words in (done.error or "")


def test_an_env_can_be_played_again_after_a_program_rewarded_itself(given: Any, renderer: ChatRenderer) -> None:
    env = given.Parts()
    assert given.play(told(0.5), given.policy(renderer, "5", "7"), renderer, env).reward == 0.5
    assert given.play(given.loop, given.policy(renderer, CALL, "7"), renderer, env).reward == 1.0


# -- how it goes wrong -----------------------------------------------------------------------------------------------


async def raises(session: Any) -> str:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(broken())
    return ""


async def broken() -> None:
    raise KeyError("no such drawer")


async def exits(task: Any) -> None:
    raise SystemExit(3)


async def silent(task: Any) -> str:
    return "7"


def test_a_program_that_raises_is_unscored_and_says_where(given: Any, renderer: ChatRenderer) -> None:
    done = given.play(raises, given.policy(renderer), renderer)
    line = raises.__code__.co_firstlineno + 7
    assert done.error == f"program_error: KeyError: 'no such drawer' (test_program.py, line {line})"
    assert (done.reward, done.outcome, done.stop_reason) == (None, Outcome.unscored, StopReason.fault)


@pytest.mark.parametrize(("program", "words"), [(exits, "SystemExit: 3"), (silent, "never called the model")])
def test_a_program_that_leaves_is_unscored(given: Any, renderer: ChatRenderer, program: Any, words: str) -> None:
    done = given.play(program, given.policy(renderer), renderer)
    assert done.outcome is Outcome.unscored
    assert words in (done.error or "")


def test_a_program_that_never_asks_is_unscored_at_the_deadline(given: Any, renderer: ChatRenderer) -> None:
    async def program(task: Any) -> None:
        await asyncio.sleep(30)

    done = given.play(program, given.policy(renderer), renderer, limits=Limits(seconds=0.2))
    assert done.outcome is Outcome.unscored
    assert done.error == "program_error: the program did not get an answer from the model in time"


@pytest.mark.parametrize("blocks", [False, True])
def test_a_deadline_ends_a_program_and_what_is_there_is_scored(
    given: Any, renderer: ChatRenderer, blocks: bool
) -> None:
    async def program(session: Any) -> None:
        wire = given.Wire(session.base_url, session.api_key)
        await wire.say(session.messages)
        if blocks:
            time.sleep(1.5)
        await asyncio.sleep(30)

    done = given.play(program, given.policy(renderer, "7"), renderer, limits=Limits(seconds=0.5))
    assert (done.stop_reason, done.outcome, done.error) == (StopReason.timeout, Outcome.incorrect, None)
    assert len(done.turns) == 1


def test_an_engine_that_fails_leaves_the_episode_unscored(given: Any, renderer: ChatRenderer) -> None:
    def fails(ids: Any, params: Any) -> Any:
        raise EngineFault("the engine burnt down")

    done = given.play(given.loop, ScriptedEngine(fails), renderer)
    assert (done.outcome, done.error) == (Outcome.unscored, "engine_error: the engine burnt down")


def test_a_tool_that_fails_leaves_the_episode_unscored(given: Any, renderer: ChatRenderer) -> None:
    class Broken(given.Parts):  # type: ignore[misc, name-defined]
        async def astep(self, message: Message) -> Any:
            raise ZeroDivisionError("in the drawer")

    done = given.play(given.loop, given.policy(renderer, CALL), renderer, Broken())
    assert (done.outcome, done.error) == (Outcome.unscored, "env_error: step: ZeroDivisionError: in the drawer")


@pytest.mark.parametrize(
    ("limits", "options", "reason"),
    [
        (Limits(turns=1), {}, StopReason.max_turns),
        (Limits(episode_tokens=4), {}, StopReason.max_tokens),
        (Limits(), {"max_turns": 1}, StopReason.max_turns),
        (Limits(), {"max_tool_calls": 1}, StopReason.max_tool_calls),
    ],
)
def test_limits_of_run_and_env_end_a_program(
    given: Any, renderer: ChatRenderer, limits: Limits, options: Any, reason: StopReason
) -> None:
    done = given.play(given.loop, given.policy(renderer, CALL, CALL, CALL), renderer, given.Parts(**options), limits)
    assert (done.stop_reason, done.outcome, done.error) == (reason, Outcome.incorrect, None)


def test_a_program_that_gives_up_on_a_malformed_call_is_scored(given: Any, renderer: ChatRenderer) -> None:
    async def program(session: Any) -> None:
        said = await given.Wire(session.base_url, session.api_key).say(session.messages, tools=session.tools)
        json.loads(said["tool_calls"][0]["function"]["arguments"])

    done = given.play(program, given.policy(renderer, '<tool_call>{"name": "count", "arg'), renderer)
    assert (done.stop_reason, done.outcome, done.error) == (StopReason.parse_error, Outcome.incorrect, None)
    assert done.metrics["malformed"] == 1


def test_what_a_program_may_ask_for_is_checked_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match="nothing to give for its parameter 'drawer'; it may ask for task, messages"):
        make_program(lambda task, drawer: "", "mine.py:agent")


def test_the_page_names_all_that_a_program_may_ask_for() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "agents.md").read_text()
    assert all(f"`{name}`" in page for name in GIVEN)
