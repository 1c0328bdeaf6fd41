"""Unmodified programs of the real SDKs: `openai` and `openai-agents`, where they are installed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from agentgym.rollout.renderer import ChatRenderer
from agentgym.types import Message, Outcome, ToolCall

PAGE = Path(__file__).resolve().parents[3] / "docs" / "agents.md"
CALL = Message("assistant", "Let me see.", tool_calls=(ToolCall("call_0", "count", {"part": "nuts"}),))


async def openai_loop(client: Any, model: str, session: Any) -> str:
    messages = list(session.messages)
    while True:
        answer = await client.chat.completions.create(model=model, messages=messages, tools=session.tools)
        said = answer.choices[0].message
        messages.append(said)
        if not said.tool_calls:
            return str(said.content)
        messages += await session.step(said)


async def openai_stream(client: Any, model: str, session: Any) -> str:
    """As a program does that puts a stream together by itself and runs the tools itself."""
    messages: list[Any] = list(session.messages)
    while True:
        content, calls = "", {}
        stream = await client.chat.completions.create(
            model="gpt-4o", messages=messages, tools=session.tools, stream=True, stream_options={"include_usage": True}
        )
        async for chunk in stream:
            if not chunk.choices:
                assert chunk.usage.completion_tokens > 0
                continue
            delta = chunk.choices[0].delta
            content += delta.content or ""
            for part in delta.tool_calls or ():
                call = calls.setdefault(
                    part.index, {"id": part.id, "type": "function", "function": {"name": "", "arguments": ""}}
                )
                call["function"]["name"] += part.function.name or ""
                call["function"]["arguments"] += part.function.arguments or ""
        if not calls:
            return content
        messages.append({"role": "assistant", "content": content, "tool_calls": list(calls.values())})
        for call in calls.values():
            result = await session.call(call["function"]["name"], json.loads(call["function"]["arguments"]))
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})


def openai_blocking(client: Any, session: Any) -> str:
    messages = list(session.messages)
    while True:
        said = client.chat.completions.create(model="m", messages=messages, tools=session.tools).choices[0].message
        messages.append(said.model_dump(exclude_none=True))
        if not said.tool_calls:
            return str(said.content)
        messages += session.step(said)


@pytest.mark.parametrize("program", [openai_loop, openai_stream, openai_blocking])
def test_a_program_of_the_openai_sdk_plays_as_our_own_agent(given: Any, renderer: ChatRenderer, program: Any) -> None:
    pytest.importorskip("openai", reason="pip install openai")
    own = given.play(None, given.policy(renderer, CALL, CALL, "7"), renderer)
    done = given.play(program, given.policy(renderer, CALL, CALL, "7"), renderer)
    assert done.error is None
    assert given.chain(done) == given.chain(own)
    assert (done.reward, done.outcome, done.messages) == (1.0, Outcome.correct, own.messages)


def test_the_program_of_the_page_plays(given: Any, renderer: ChatRenderer) -> None:
    pytest.importorskip("openai", reason="pip install openai")
    found: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)[0], found)
    assert given.play(found["agent"], given.policy(renderer, CALL, "7"), renderer).reward == 1.0


def test_the_openai_sdk_reads_our_errors(given: Any, renderer: ChatRenderer) -> None:
    openai = pytest.importorskip("openai", reason="pip install openai")
    seen: list[Any] = []

    async def program(client: Any) -> str:
        for more in ({"n": 2}, {"tool_choice": "required"}):
            with pytest.raises(openai.BadRequestError) as refused:
                await client.chat.completions.create(
                    model="m", messages=[{"role": "user", "content": "How many nuts?"}], **more
                )
            seen.append(refused.value.param)
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="sk-wrong").models.list()
        assert [model.id async for model in await client.models.list()] == ["policy"]
        answer = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "How many?"}])
        return str(answer.choices[0].message.content)

    done = given.play(program, given.policy(renderer, "7"), renderer)
    assert (done.error, done.reward, seen) == (None, 1.0, ["n", "tool_choice"])


@pytest.mark.parametrize("streamed", [False, True])
def test_a_program_of_openai_agents_plays(given: Any, renderer: ChatRenderer, streamed: bool) -> None:
    agents = pytest.importorskip("agents", reason="pip install openai-agents")

    async def program(client: Any, task: Any, session: Any) -> str:
        agents.set_tracing_disabled(True)

        @agents.function_tool
        async def count(part: str) -> str:
            """How many there are."""
            return str(await session.call("count", {"part": part}))

        model = agents.OpenAIChatCompletionsModel(model="any", openai_client=client)
        clerk = agents.Agent(name="clerk", instructions="Count.", model=model, tools=[count])
        if not streamed:
            return str((await agents.Runner.run(clerk, task.prompt)).final_output)
        run = agents.Runner.run_streamed(clerk, task.prompt)
        async for _ in run.stream_events():
            pass
        return str(run.final_output)

    done = given.play(program, given.policy(renderer, CALL, CALL, "7"), renderer)
    assert done.error is None
    assert (done.reward, [turn.parent for turn in done.turns]) == (1.0, [None, 0, 1])
    assert done.metrics["branches"] == 0
