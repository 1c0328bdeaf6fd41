"""The wire: keys, errors, streams, and what a request may say."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import httpx
import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from agentgym.engines.scripted import ScriptedEngine
from agentgym.rollout.program.wire import WireError, read_ask
from agentgym.rollout.renderer import ChatRenderer
from agentgym.types import Message, ToolCall

USER = {"role": "user", "content": "How many nuts?"}
TWO = Message(
    "assistant",
    "Both.",
    tool_calls=(ToolCall("call_0", "count", {"part": "nuts"}), ToolCall("call_1", "count", {"part": "bolts"})),
)


def ended(given: Any, renderer: ChatRenderer, talk: Any, *replies: Any) -> Any:
    """What a program's talk returned."""
    found: list[Any] = []

    async def program(base_url: str, api_key: str) -> float:
        wire = given.Wire(base_url, api_key)
        found.append(await talk(wire))
        await wire.say([USER])
        return 1.0

    done = given.play(program, given.policy(renderer, *replies, "7"), renderer)
    assert done.error is None
    return found[0]


def test_an_answer_has_openais_shape(given: Any, renderer: ChatRenderer) -> None:
    answer = ended(given, renderer, lambda wire: wire.ask([USER], temperature=0.2, top_p=0.5, seed=3), TWO)
    assert answer["object"] == "chat.completion"
    assert answer["id"].startswith("chatcmpl-")
    assert answer["model"] == "any"
    (choice,) = answer["choices"]
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "tool_calls", None)
    assert (choice["message"]["role"], choice["message"]["content"]) == ("assistant", "Both.")
    calls = [json.loads(call["function"]["arguments"]) for call in choice["message"]["tool_calls"]]
    assert calls == [{"part": "nuts"}, {"part": "bolts"}]
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens"] == len(renderer.sampled(TWO))


@pytest.mark.parametrize(
    ("more", "calls", "content"),
    [
        ({}, 2, "Both."),
        ({"tool_choice": "auto", "parallel_tool_calls": True}, 2, "Both."),
        ({"parallel_tool_calls": False}, 1, "Both."),
        ({"tool_choice": "none"}, 0, None),
    ],
)
def test_a_request_says_how_many_calls_it_takes(
    given: Any, renderer: ChatRenderer, more: Any, calls: int, content: str | None
) -> None:
    said = ended(given, renderer, lambda wire: wire.say([USER], **more), TWO)
    assert len(said.get("tool_calls", ())) == calls
    assert said["content"] == (content or renderer.decode(renderer.sampled(TWO).tolist()))


def test_a_message_may_be_cut(given: Any, renderer: ChatRenderer) -> None:
    answer = ended(given, renderer, lambda wire: wire.ask([USER], max_completion_tokens=2, max_tokens=9), "7 nuts here")
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize("usage", [False, True])
def test_a_stream_holds_the_same_as_the_whole(given: Any, renderer: ChatRenderer, usage: bool) -> None:
    async def talk(wire: Any) -> list[Any]:
        body = {"messages": [USER], "stream": True, "stream_options": {"include_usage": usage}}
        async with wire.http.stream("POST", "chat/completions", json=body) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            lines = [line async for line in response.aiter_lines() if line]
        assert lines[-1] == "data: [DONE]"
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]

    events = ended(given, renderer, talk, TWO)
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert len({event["id"] for event in events}) == 1
    if usage:
        last = events.pop()
        assert (last["choices"], last["usage"]["completion_tokens"]) == ([], len(renderer.sampled(TWO)))
    deltas = [event["choices"][0]["delta"] for event in events]
    assert deltas[0]["role"] == "assistant"
    assert "".join(delta.get("content") or "" for delta in deltas) == "Both."
    calls: dict[int, dict[str, str]] = {}
    for delta in deltas:
        for part in delta.get("tool_calls", ()):
            call = calls.setdefault(part["index"], {"id": "", "name": "", "arguments": ""})
            call["id"] += part.get("id", "")
            for key, value in part["function"].items():
                call[key] += value
    assert [(call["name"], json.loads(call["arguments"])["part"]) for call in calls.values()] == [
        ("count", "nuts"),
        ("count", "bolts"),
    ]
    assert len({call["id"] for call in calls.values()}) == 2
    assert [event["choices"][0]["finish_reason"] for event in events][-1] == "tool_calls"


def test_a_key_belongs_to_one_episode(given: Any, renderer: ChatRenderer) -> None:
    keys: list[tuple[str, str]] = []

    async def program(base_url: str, api_key: str) -> str:
        keys.append((base_url, api_key))
        for wrong in ("", "Bearer sk-wrong", f"Basic {api_key}", *(f"Bearer {key}" for _, key in keys[:-1])):
            async with httpx.AsyncClient(trust_env=False, verify=False) as http:
                body = {"messages": [USER]}
                answer = await http.post(f"{base_url}/chat/completions", json=body, headers={"authorization": wrong})
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
        return str((await given.Wire(base_url, api_key).say([USER]))["content"])

    for _ in range(2):
        assert given.play(program, given.policy(renderer, "7"), renderer).reward == 1.0
    assert len(set(keys)) == 2
    assert len({url for url, _ in keys}) == 1


def test_models_are_listed(given: Any, renderer: ChatRenderer) -> None:
    async def talk(wire: Any) -> Any:
        one = (await wire.http.get("models/policy")).json()
        return (await wire.http.get("models")).json()["data"], one

    rows, one = ended(given, renderer, talk)
    assert rows == [one]
    assert one["id"] == "policy"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "JSON object"),
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["hello"]}, "messages[0]: expected an object"),
        ({"messages": [{"role": "robot", "content": ""}]}, "messages[0].role: expected system"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0]"),
        ({"n": 2}, "n: one answer a request"),
        ({"tool_choice": "required"}, "tool_choice: auto or none"),
        ({"tool_choice": {"type": "function", "function": {"name": "count"}}}, "tool_choice: auto or none"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"functions": [{}]}, "functions: OpenAI has given it up; use tools"),
        ({"logprobs": True}, "logprobs"),
        ({"tools": {}}, "tools: expected a list"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"stop": [3]}, "stop"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens: expected int"),
        ({"stream": "yes"}, "stream: expected bool"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name_in_openais_form(
    given: Any, renderer: ChatRenderer, body: Any, words: str
) -> None:
    if isinstance(body, dict) and "messages" not in body and body:
        body = {"messages": [USER], **body}

    async def talk(wire: Any) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await wire.http.post("chat/completions", content=data)

    answer = ended(given, renderer, talk)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert words in error["message"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "chat/completions", 405, "POST"),
        ("POST", "models", 405, "GET"),
        ("POST", "responses", 404, "set_default_openai_api('chat_completions')"),
        ("GET", "nothing", 404, "there are /v1/chat/completions and /v1/models"),
    ],
)
def test_other_paths_say_what_there_is(
    given: Any, renderer: ChatRenderer, method: str, path: str, status: int, words: str
) -> None:
    answer = ended(given, renderer, lambda wire: wire.http.request(method, path))
    assert answer.status_code == status
    assert words in answer.json()["error"]["message"]


def test_an_answer_that_nobody_waited_for_is_no_turn(given: Any, renderer: ChatRenderer) -> None:
    end = renderer.stop_ids[0]
    engine = ScriptedEngine(lambda ids, params: [*renderer.tokenizer.encode("7", add_special_tokens=False), end])

    async def program(base_url: str, api_key: str) -> str:
        wire = given.Wire(base_url, api_key)
        engine._delay = 5.0
        with pytest.raises(httpx.ReadTimeout):
            await wire.http.post("chat/completions", json={"messages": [USER]}, timeout=0.1)
        engine._delay = 0.0
        await asyncio.sleep(0.05)
        return str((await wire.say([USER]))["content"])

    done = given.play(program, engine, renderer)
    assert (len(engine.calls), len(done.turns), done.reward) == (2, 1, 1.0)
    assert done.metrics["branches"] == 0


KEYS = ["messages", "role", "content", "tools", "stop", "type", "function", "name", "arguments", "text", "image_url"]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=12,
)


@drawn(values)
def test_no_body_breaks_the_reader(body: Any) -> None:
    said = {"messages": [{"role": "user", "content": body}]}
    called = {"messages": [{"role": "assistant", "tool_calls": body}]}
    for data in (body, {"messages": body}, said, called, {"messages": [USER], "tools": body}):
        with suppress(WireError):
            read_ask(json.dumps(data).encode())


def test_a_defect_is_told_in_openais_form_and_leaves_the_episode_unscored(given: Any, renderer: ChatRenderer) -> None:
    class Defective(ChatRenderer):
        def start(self, messages: Any, tools: Any = ()) -> Any:
            raise ZeroDivisionError("in the renderer")

    told: list[Any] = []

    async def program(base_url: str, api_key: str) -> None:
        told.append(await given.Wire(base_url, api_key).fail([USER]))

    done = given.play(program, given.policy(renderer, "7"), Defective(renderer.tokenizer))
    assert done.error == "engine_error: endpoint: ZeroDivisionError: in the renderer"
    if told:  # it may have been stopped before it read that
        assert (told[0][0], told[0][1]["type"]) == (500, "server_error")


@pytest.mark.parametrize(("letter", "status"), [(b"\\ud800", 400), (b"\\ud83d\\ude00", 200)])
def test_half_a_letter_is_refused(given: Any, renderer: ChatRenderer, letter: bytes, status: int) -> None:
    async def talk(wire: Any) -> int:
        data = b'{"messages": [{"role": "user", "content": "' + letter + b'"}]}'
        return int((await wire.http.post("chat/completions", content=data)).status_code)

    assert ended(given, renderer, talk, "7") == status
