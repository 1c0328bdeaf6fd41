"""Demonstrations: conversations to warm-start on, from an env's scripted expert or from a JSONL file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agentgym.errors import ConfigError, DataError, EpisodeFault
from agentgym.loading import users_code
from agentgym.protocols import Env, Policy, Renderer
from agentgym.rollout.record import read_rows
from agentgym.trainers.batch import Row
from agentgym.types import Message, Task


@dataclass(frozen=True, slots=True)
class Demonstration:
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()


async def play_expert(env: Env, task: Task, seed: int, style: str = "demo") -> Demonstration | None:
    """What the env's scripted player of `task` does; the task's own `demo` where it has one; None without either.

    A demo that makes calls without saying what they answered is played, so that the env answers them.
    """
    told = f"the demonstration of task {task.id!r} cannot be played"
    try:
        with users_code(told):
            start = await env.areset(seed=seed, options={"task": task})
            if task.demo is not None and _is_whole(task.demo):
                return Demonstration((*start.messages, *task.demo), start.tools)
            policy = env.expert(task, seed, style)
            return Demonstration(tuple(await _play(env, policy, start.messages)), start.tools) if policy else None
    except EpisodeFault as fault:
        raise ConfigError(f"{told}: {fault}") from fault


async def _play(env: Env, policy: Policy, prompt: Sequence[Message]) -> list[Message]:
    messages = list(prompt)
    while True:
        message = policy(messages)
        messages.append(message)
        step = await env.astep(message)
        messages += step.messages
        if step.done:
            return messages


def _is_whole(demo: Sequence[Message]) -> bool:
    return not any(message.tool_calls for message in demo) or any(message.role == "tool" for message in demo)


async def expert_demonstrations(env: Env, count: int, seed: int) -> list[Demonstration]:
    """`count` demonstrations over the env's own mix of tasks (`demo_tasks`) or else its training tasks."""
    if hasattr(env, "demo_tasks"):
        tasks: Sequence[Task] = env.demo_tasks(count, seed)
    else:
        known = env.tasks("train")
        tasks = [known[int(i)] for i in np.random.default_rng(seed).integers(len(known), size=count)]
    played = [await play_expert(env, task, seed * 1_000_003 + i) for i, task in enumerate(tasks)]
    return [demonstration for demonstration in played if demonstration is not None]


def read_demonstrations(path: str) -> list[Demonstration]:
    """A JSONL file of {"messages": [...], "tools": [...]?}; `DataError` names the file and line that is wrong."""
    found = [_demonstration(f"{path}:{number}", row) for number, row in read_rows(path)]
    if not found:
        raise DataError(f"{path}: holds no conversation")
    return found


def _demonstration(where: str, row: Mapping[str, Any]) -> Demonstration:
    if not isinstance(row.get("messages"), list):
        raise DataError(f'{where}: expected an object with "messages", a list of chat messages')
    messages = []
    for i, message in enumerate(row["messages"]):
        try:
            messages.append(Message.from_openai(message))
        except (ValueError, KeyError, AttributeError, TypeError) as e:
            raise DataError(f"{where}: messages[{i}]: {e}") from None
    if not any(message.role == "assistant" for message in messages):
        raise DataError(f"{where}: no assistant message, so there is nothing to learn from")
    tools = row.get("tools") or []
    if not isinstance(tools, list) or not all(isinstance(tool, dict) and "function" in tool for tool in tools):
        raise DataError(f'{where}: "tools" is to be a list of OpenAI function schemas')
    return Demonstration(tuple(messages), tuple(tools))


def demonstration_rows(renderer: Renderer, demonstrations: Sequence[Demonstration], max_context: int) -> list[Row]:
    """Tokens to learn by cross-entropy: every assistant token has weight 1. Those over the context are cut."""
    rows = []
    for demonstration in demonstrations:
        for ids, mask in renderer.branches(demonstration.messages, demonstration.tools):
            ids, mask = ids[:max_context], mask[:max_context]
            if mask.any():
                zeros = np.zeros(len(ids), np.float32)
                rows.append(Row(ids, mask, zeros, np.ones(len(ids), np.float32), np.zeros(len(ids), np.int32)))
    if demonstrations and not rows:
        raise ConfigError(f"no demonstration has an assistant token within engine.max_context = {max_context}")
    return rows
