"""A program's conversations as a tree: what goes on appends, all else is a branch that says its cause."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from agentgym.engines.scripted import ScriptedEngine
from agentgym.rollout.episode import Limits
from agentgym.rollout.record import from_row, to_row
from agentgym.rollout.renderer import ChatRenderer
from agentgym.trainers.batch import build_rows
from agentgym.trainers.credit.grpo import grpo
from agentgym.trainers.step_metrics import group_metrics
from agentgym.types import Group, Message, ToolCall, Trajectory

CALL = Message("assistant", tool_calls=(ToolCall("call_0", "count", {"part": "nuts"}),))
USER = {"role": "user", "content": "How many nuts?"}
AGAIN = {"role": "user", "content": "Sure?"}
TOOL = {"type": "function", "function": {"name": "count", "parameters": {"type": "object", "properties": {}}}}
Talk = Callable[[Any], Any]


async def goes_on(wire: Any) -> None:
    said = await wire.say([USER])
    await wire.say([USER, said, AGAIN])


async def content_in_parts(wire: Any) -> None:
    said = await wire.say([{"role": "user", "content": [{"type": "text", "text": "How many nuts?"}]}])
    parts = {"role": "assistant", "content": [{"type": "text", "text": said["content"]}]}
    await wire.say([USER, parts, AGAIN])


async def retries(wire: Any) -> None:
    said = await wire.say([USER])
    await wire.say([USER, said, AGAIN])
    await wire.say([USER, said, AGAIN])


async def asks_twice(wire: Any) -> None:
    await wire.say([USER])
    await wire.say([USER])


async def edits_an_answer(wire: Any) -> None:
    said = await wire.say([USER])
    await wire.say([USER, {**said, "content": f"{said['content']}!"}, AGAIN])


async def edits_the_question(wire: Any) -> None:
    said = await wire.say([AGAIN, USER])
    await wire.say([AGAIN, {"role": "user", "content": "How many?"}, said, AGAIN])


async def compacts(wire: Any) -> None:
    said = await wire.say([USER])
    await wire.say([USER, said, AGAIN])
    await wire.say([USER, {"role": "user", "content": "Summary: nuts."}, AGAIN])


async def another(wire: Any) -> None:
    system = {"role": "system", "content": "Count."}
    await wire.say([system, USER])
    await wire.say([system, AGAIN])


async def other_tools(wire: Any) -> None:
    said = await wire.say([USER], tools=[TOOL])
    await wire.say([USER, said, AGAIN])


@pytest.mark.parametrize(
    ("talk", "parents", "causes"),
    [
        (goes_on, [None, 0], [""]),
        (content_in_parts, [None, 0], [""]),
        (retries, [None, 0, 0], ["", "repeated: turn 0 was gone on from before"]),
        (asks_twice, [None, None], ["repeated: the same conversation was asked before"]),
        (edits_an_answer, [None, None], ["edited: message 1 (assistant) is not what stood there"]),
        (edits_the_question, [None, None], ["edited: message 1 (user) is not what stood there"]),
        (compacts, [None, 0, None], ["", "edited: message 1 (user) is not what stood there"]),
        (another, [None, None], ["other: another conversation"]),
        (other_tools, [None, None], ["tools: they are not those that the conversation began with"]),
    ],
)
def test_what_does_not_go_on_is_a_branch_that_says_why(
    given: Any, renderer: ChatRenderer, talk: Talk, parents: list[int | None], causes: list[str]
) -> None:
    async def program(base_url: str, api_key: str) -> float:
        await talk(given.Wire(base_url, api_key))
        return 1.0

    engine = given.policy(renderer, "5", "6", "7")
    done: Trajectory = given.play(program, engine, renderer)
    assert done.error is None
    assert [turn.parent for turn in done.turns] == parents
    assert [turn.cause for turn in done.turns][1:] == causes
    assert done.metrics["branches"] == sum(map(bool, causes))
    # what the engine was asked is exactly the tokens of the branch
    for turn, (ids, _, _) in zip(done.turns, engine.calls, strict=True):
        assert ids == branch(done, turn.id)
    # each conversation has a session of its own, and all of them are let go
    assert len({session for _, _, session in engine.calls}) == 1 + sum(map(bool, causes))
    assert sorted(engine.released) == sorted({session for _, _, session in engine.calls})
    kinds = {cause.partition(":")[0] for cause in causes if cause}
    told = group_metrics([Group("g", "nuts", "parts", (done,))])
    assert {key: told[key] for key in told if key.startswith("branches/")} == {f"branches/{kind}": 1 for kind in kinds}
    # everything that was sampled is trained once, whatever the shape of the tree
    group = Group("g", "nuts", "parts", (done, done))
    rows = build_rows([group], [grpo(group)], version=0, max_staleness=0)
    assert rows.sampled_tokens == 2 * done.sampled_tokens
    stored = from_row(json.loads(json.dumps(to_row(done))))
    assert [(t.prompt, t.cause, t.parent) for t in stored.turns] == [(t.prompt, t.cause, t.parent) for t in done.turns]
    assert stored.messages == done.messages


def branch(done: Trajectory, number: int) -> list[int]:
    turn = done.turns[number]
    before: list[int] = []
    if turn.parent is not None:
        before = [*branch(done, turn.parent), *done.turns[turn.parent].completion.ids.tolist()]
    return [*before, *turn.context_ids.tolist()]


def test_a_branch_keeps_what_it_was_told(given: Any, renderer: ChatRenderer) -> None:
    async def program(base_url: str, api_key: str) -> float:
        await compacts(given.Wire(base_url, api_key))
        return 1.0

    done = given.play(program, given.policy(renderer, "5", "6", "7"), renderer)
    assert [m.text for m in done.prompt] == ["How many nuts?"]
    assert [m.text for m in done.turns[0].observations] == ["Sure?"]
    assert [m.text for m in done.turns[2].prompt] == ["How many nuts?", "Summary: nuts.", "Sure?"]


def test_a_past_that_the_template_rewrites_is_a_branch_as_it_is_for_our_own_agent(
    given: Any, showing_ids: ChatRenderer
) -> None:
    thought = Message("assistant", "5", reasoning="let me think")

    async def program(base_url: str, api_key: str) -> float:
        wire = given.Wire(base_url, api_key)
        said = await wire.say([USER])
        assert said["reasoning_content"] == "let me think"
        del said["reasoning_content"]  # as most programs do
        await wire.say([USER, said, AGAIN])
        return 1.0

    done = given.play(program, given.policy(showing_ids, thought, "7"), showing_ids)
    assert [turn.parent for turn in done.turns] == [None, None]
    assert done.turns[1].cause == "template: it renders its past otherwise now"
    assert done.metrics["rewrites"] == done.metrics["branches"] == 1
    assert [m.text for m in done.messages] == ["How many nuts?", "5", "Sure?", "7"]


def test_calls_have_ids_of_their_own_on_the_wire_and_the_parsers_inside(given: Any, renderer: ChatRenderer) -> None:
    seen: list[str] = []

    async def program(session: Any) -> str:
        wire, messages = given.Wire(session.base_url, session.api_key), list(session.messages)
        for _ in range(2):
            messages.append(await wire.say(messages, tools=session.tools))
            answers = await session.step(messages[-1])
            seen.extend(call["id"] for call in messages[-1]["tool_calls"])
            assert [answer["tool_call_id"] for answer in answers] == seen[-1:]
            messages += answers
        return str((await wire.say(messages, tools=session.tools))["content"])

    done = given.play(program, given.policy(renderer, CALL, CALL, "7"), renderer)
    assert done.reward == 1.0
    assert len(set(seen)) == 2
    assert [m.tool_call_id for m in done.messages if m.role == "tool"] == ["call_0", "call_0"]


def test_versions_are_those_of_each_token(given: Any, renderer: ChatRenderer) -> None:
    """New weights arrive in the middle of an episode: each turn has the version that sampled it."""
    engine = given.policy(renderer, "5", "6")

    async def program(base_url: str, api_key: str) -> float:
        wire = given.Wire(base_url, api_key)
        said = await wire.say([USER])
        engine._version = 3
        await wire.say([USER, said, AGAIN])
        return 1.0

    done = given.play(program, engine, renderer)
    assert [set(turn.completion.versions.tolist()) for turn in done.turns] == [{0}, {3}]


def test_requests_at_once_are_answered_at_once_and_all_recorded(given: Any, renderer: ChatRenderer) -> None:
    import asyncio

    async def program(base_url: str, api_key: str) -> float:
        wire = given.Wire(base_url, api_key)
        said = await wire.say([USER])
        await asyncio.gather(*(wire.say([USER, said, {"role": "user", "content": f"{i}?"}]) for i in range(4)))
        return 1.0

    ends = [*renderer.tokenizer.encode("7", add_special_tokens=False), renderer.stop_ids[0]]
    engine = ScriptedEngine(lambda ids, params: ends, delay=0.05)
    done = given.play(program, engine, renderer)
    assert [turn.parent for turn in done.turns] == [None, 0, 0, 0, 0]
    assert done.metrics["branches_repeated"] == 3
    assert len({params.seed for _, params, _ in engine.calls}) == 5
    assert len({session for _, _, session in engine.calls}) == 4


def test_a_stop_text_ends_what_is_sampled_there(given: Any, renderer: ChatRenderer) -> None:
    async def program(base_url: str, api_key: str) -> str:
        wire = given.Wire(base_url, api_key)
        said = await wire.say([USER], stop=["bolts", "zz"])
        assert said["content"] == "7 nuts"
        return str((await wire.say([USER, said, AGAIN], stop="zz"))["content"])

    done = given.play(program, given.policy(renderer, "7 nuts bolts are there", "7"), renderer)
    first = done.turns[0].completion
    assert renderer.decode(first.ids.tolist()) == "7 nuts bolts"
    assert len(first.ids) == len(first.logprobs) == len(first.versions)
    assert renderer.stop_ids[0] not in first.ids
    assert done.turns[1].context_ids[0] == renderer.stop_ids[0]  # its end of turn, closed by the renderer
    assert (done.turns[1].parent, done.reward) == (0, 1.0)


def test_a_conversation_without_room_is_told_as_openai_tells_it_and_may_be_compacted(
    given: Any, renderer: ChatRenderer
) -> None:
    room = 24

    def answers(ids: list[int], params: Any) -> Any:
        return [*renderer.tokenizer.encode("7", add_special_tokens=False), renderer.stop_ids[0]]

    class Small(ScriptedEngine):
        async def generate(self, ids: Any, params: Any, *, session: str | None = None) -> Any:
            done = await super().generate(ids, params, session=session)
            empty = np.zeros(0, np.int32)
            if len(ids) < room:
                return done
            return type(done)(empty, empty.astype(np.float32), empty, "length")

    async def program(base_url: str, api_key: str) -> str:
        wire = given.Wire(base_url, api_key)
        status, error = await wire.fail([USER] * 9)
        assert (status, error["code"]) == (400, "context_length_exceeded")
        return str((await wire.say([USER]))["content"])

    async def gives_up(base_url: str, api_key: str) -> None:
        await given.Wire(base_url, api_key).say([USER] * 9)

    assert given.play(program, Small(answers), renderer).reward == 1.0
    done = given.play(gives_up, Small(answers), renderer, limits=Limits(seconds=20))
    assert (done.stop_reason.value, done.error) == ("context_overflow", None)
