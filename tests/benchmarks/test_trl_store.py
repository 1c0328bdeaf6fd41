"""The store that TRL plays in `benchmarks/vs_trl.py` is Store-v0: same prices, same answers, same pay."""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentgym.envs.script import call
from agentgym.envs.store import StoreEnv
from agentgym.trainers.tiny_model import build_tokenizer, conversation_texts
from agentgym.types import Message, Task

pytest.importorskip("trl", reason="TRL is a development dependency: pip install 'agentgym-train[dev]'")
pytest.importorskip("datasets", reason="TRL's own dependency")

SEED = 7


@pytest.fixture(scope="module")
def trl_store() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        patch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
        return importlib.import_module("trl_store")


async def _play_ours(env: StoreEnv, task: Task, rng: np.random.Generator, style: str) -> tuple[list[Message], float]:
    """Scripted play on Store-v0, drawing from `rng`."""
    env._np_random = rng
    start = await env.areset(options={"task": task})
    said = list(start.messages)
    expert = env.expert(task, SEED, style)
    assert expert is not None
    while True:
        said.append(expert(said))
        step = await env.astep(said[-1])
        said += step.messages
        if step.done:
            return said, step.reward


@pytest.mark.parametrize("style", ["gold", "demo"])
def test_same_play_gets_the_same_answers_and_pay(trl_store: Any, style: str) -> None:
    env = StoreEnv(busy=0.3, demo_mistakes=0.2)
    rewards = trl_store.Rewards(env)
    ours_rng = np.random.default_rng(SEED)
    store = trl_store.environment_class(env, SEED)()
    paid, busy = [], 0
    for index in range(60):
        said, reward = asyncio.run(_play_ours(env, env.tasks("train")[index], ours_rng, style))
        store.reset(task=index, prompt=[])
        completion: list[dict[str, Any]] = []
        for message in said[1:]:
            if message.role == "tool":
                continue
            calls = [{"function": {"name": c.name, "arguments": dict(c.arguments)}} for c in message.tool_calls]
            completion.append({"role": "assistant", "content": message.text, "tool_calls": calls})
            for made in message.tool_calls:
                completion.append({"role": "tool", "content": getattr(store, made.name)(**made.arguments)})
        assert [m["content"] for m in completion if m["role"] == "tool"] == [m.text for m in said if m.role == "tool"]
        assert rewards([completion], [store]) == [reward]
        paid.append(reward)
        busy += sum(message.text == "busy" for message in said)
    assert busy > 10
    assert sum(paid) > (55 if style == "gold" else 0)
    assert style == "gold" or sum(paid) < 55


@pytest.mark.parametrize(
    ("tool", "argument"), [("lookup", "unicorn"), ("calculator", "3**"), ("calculator", "1/0"), ("lookup", "")]
)
def test_bad_arguments_get_the_same_answers(trl_store: Any, tool: str, argument: str) -> None:
    env = StoreEnv(busy=0.0)
    store = trl_store.environment_class(env, SEED)()
    store.reset(task=0)
    name = {"lookup": "item", "calculator": "expression"}[tool]

    async def ours() -> str:
        await env.areset(seed=0, options={"index": 0})
        return (await env.astep(call(tool, "call_0", **{name: argument}))).messages[0].text

    assert getattr(store, tool)(argument) == asyncio.run(ours())


def test_nothing_but_the_last_message_is_paid(trl_store: Any) -> None:
    env = StoreEnv()
    store = trl_store.environment_class(env, SEED)()
    store.reset(task=0)
    a, _, b, _, c = store.episode.task.metadata["terms"]
    right = {"role": "assistant", "content": str(int(a) * int(b) + int(c))}
    calls = {**right, "tool_calls": [{"function": {"name": "calculator", "arguments": {}}}]}
    wrong = {"role": "assistant", "content": "0"}
    rewards = trl_store.Rewards(env)
    assert rewards([[right], [wrong, right], [right, wrong], [calls]], [store] * 4) == [1.0, 1.0, 0.0, 0.0]
    assert rewards.batches == [{"reward": 0.5, "turns": 1.5}]


def test_trl_reads_a_call_as_we_write_it(trl_store: Any) -> None:
    from trl.chat_template_utils import is_chat_template_prefix_preserving, parse_response

    env = StoreEnv()
    said, _ = asyncio.run(_play_ours(env, env.tasks("train")[2], np.random.default_rng(0), "gold"))
    tokenizer = build_tokenizer(conversation_texts([said], env.toolset.schemas))
    tokenizer.response_template = trl_store.RESPONSE_TEMPLATE
    assert is_chat_template_prefix_preserving(tokenizer)
    store = trl_store.environment_class(env, SEED)()
    prompt = tokenizer(f"<|user|>{said[0].text}<|assistant|>")["input_ids"]
    ids = tokenizer('<tool_call>\n{"name": "lookup", "arguments": {"item": "pear"}}\n</tool_call><|end|>')["input_ids"]
    read = parse_response(tokenizer, ids, prefix=prompt, tools=[store.lookup, store.calculator])
    assert read["tool_calls"][0]["function"] == {"name": "lookup", "arguments": {"item": "pear"}}
    answer = parse_response(tokenizer, tokenizer("1234<|end|>")["input_ids"], prefix=prompt, tools=[store.lookup])
    assert answer["content"] == "1234"
    assert not answer.get("tool_calls")
