"""A small shop, a scripted policy, and programs that speak OpenAI's wire by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

import agentgym as ag
from agentgym.engines.scripted import ScriptedEngine
from agentgym.rollout.agent import Agent
from agentgym.rollout.episode import Limits, Play, run_episode
from agentgym.rollout.program.agent import ProgramAgent
from agentgym.rollout.program.function import Stage, make_program
from agentgym.rollout.program.server import EndpointServer
from agentgym.rollout.renderer import ChatRenderer
from agentgym.trainers.tiny_model import build_tokenizer
from agentgym.types import Message, Trajectory

STOCK = {"nuts": 7, "bolts": 12}
IDS = """\
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
<|assistant|>{% if message.reasoning_content and loop.last %}<think>
{{ message.reasoning_content }}
</think>

{% endif %}{{ message.content or '' }}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>[{{ call.id }}]{% endfor -%}
<|end|>
{%- else -%}
<|{{ message.role }}|>{{ message.name or '' }}{{ message.tool_call_id or '' }}{{ message.content }}
{%- endif -%}
{%- endfor -%}
{%- if tools %}<|system|>{{ tools | tojson }}{% endif -%}
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}
"""
"""Shows ids and names, and drops all reasoning but the last."""


@ag.tool
def count(part: str) -> int:
    """How many there are."""
    return STOCK[part]


class Parts(ag.ToolEnv):
    tools = (count,)

    def __init__(self, **kwargs: Any):
        tasks = (ag.Task("nuts", "How many nuts?", "7"), ag.Task("bolts", "How many bolts?", "12"))
        super().__init__(tasks=tasks, holdout=0, **kwargs)

    def reward(self, task: ag.Task, answer: str, episode: ag.Episode) -> float:
        return float(answer == task.answer)


def policy(renderer: ChatRenderer, *replies: str | Message, **options: Any) -> ScriptedEngine:
    """Says the replies, one after the other: messages, or texts as they are, with their end of turn."""
    end = renderer.stop_ids[0]

    def tokens(reply: str | Message) -> list[int]:
        if isinstance(reply, Message):
            return [int(i) for i in renderer.sampled(reply)]
        return [*renderer.tokenizer.encode(reply, add_special_tokens=False), end]

    return ScriptedEngine([tokens(reply) for reply in replies], **options)


@dataclass
class Theatre:
    """One loop, endpoint and stage for the episodes of all tests."""

    runner: asyncio.Runner = field(default_factory=asyncio.Runner)
    server: EndpointServer = field(default_factory=EndpointServer)
    stage: Stage = field(default_factory=Stage)

    def play(
        self,
        function: Callable[..., Any] | None,
        engine: Any,
        renderer: Any,
        env: Any = None,
        limits: Limits | None = None,
        routing: bool = False,
    ) -> Trajectory:
        """One episode by a program, or by our own agent where it is None."""
        agent: Any = Agent(engine, renderer, renderer.parser)
        if function is not None:
            program = make_program(function)
            agent = ProgramAgent(
                engine, renderer, renderer.parser, program, server=self.server, stage=self.stage, routing=routing
            )
        begun = Play("0:nuts/3", "parts", {"index": 0}, seed=5)
        episode = run_episode(env or Parts(), agent, begun, limits or Limits(seconds=20))
        (done,) = self.runner.run(episode)
        return done

    def close(self) -> None:
        self.runner.run(self.server.aclose())
        self.stage.close()
        self.runner.close()


class Wire:
    """An OpenAI client by hand."""

    def __init__(self, base_url: str, api_key: str):
        self.http = httpx.AsyncClient(
            base_url=base_url, headers={"authorization": f"Bearer {api_key}"}, trust_env=False, verify=False, timeout=20
        )

    async def ask(self, messages: Sequence[Any], **more: Any) -> Any:
        """The whole answer of a request that is to succeed."""
        response = await self.http.post("chat/completions", json={"model": "any", "messages": messages, **more})
        assert response.status_code == 200, response.text
        return response.json()

    async def say(self, messages: Sequence[Any], **more: Any) -> Any:
        """The message of an answer."""
        return (await self.ask(messages, **more))["choices"][0]["message"]

    async def fail(self, messages: Any, **more: Any) -> tuple[int, dict[str, Any]]:
        response = await self.http.post("chat/completions", json={"model": "any", "messages": messages, **more})
        return response.status_code, response.json()["error"]


async def loop(session: Any) -> str:
    """The loop that most agents are."""
    wire = Wire(session.base_url, session.api_key)
    messages = list(session.messages)
    while True:
        said = await wire.say(messages, tools=session.tools)
        messages.append(said)
        if not said.get("tool_calls"):
            return str(said["content"])
        messages += await session.step(said)


def chain(done: Trajectory) -> list[tuple[int | None, list[int], list[int]]]:
    return [(t.parent, t.context_ids.tolist(), t.completion.ids.tolist()) for t in done.turns]


@pytest.fixture(scope="session")
def renderer() -> ChatRenderer:
    return ChatRenderer(build_tokenizer(["How many nuts bolts are there 0 1 2 3 count part", json.dumps(STOCK)]))


@pytest.fixture(scope="session")
def showing_ids(renderer: ChatRenderer) -> ChatRenderer:
    return ChatRenderer(renderer.tokenizer, chat_template=IDS, tool_format="hermes")


@pytest.fixture(scope="session")
def given() -> Iterator[SimpleNamespace]:
    theatre = Theatre()
    yield SimpleNamespace(
        Parts=Parts, Wire=Wire, chain=chain, loop=loop, play=theatre.play, policy=policy, server=theatre.server
    )
    theatre.close()
