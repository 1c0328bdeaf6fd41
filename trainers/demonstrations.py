"""Demonstrations: conversations to warm-start on, from an env's scripted expert or from a JSONL file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agentgym.errors import ConfigError, DataError
from agentgym.protocols import Env, Renderer
from agentgym.trainers.batch import Row
from agentgym.types import Message, Task


@dataclass(frozen=True, slots=True)
class Demonstration:
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()


async def play_expert(env: Env, task: Task, seed: int, style: str = "demo") -> Demonstration | None:
    """What the env's scripted player of `task` does; the task's own `demo` where it has one; None without either."""
    start = await env.areset(seed=seed, options={"task": task})
    if task.demo is not None:
        return Demonstration((*start.messages, *task.demo), start.tools)
    policy = env.expert(task, seed, style)
    if policy is None:
        return None
    messages = list(start.messages)
    while True:
        message = policy(messages)
        messages.append(message)
        step = await env.astep(message)
        messages += step.messages
        if step.done:
            return Demonstration(tuple(messages), start.tools)


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
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as e:
        raise DataError(f"sft.data = {path!r}: cannot be read: {e.strerror}") from None
    except UnicodeDecodeError as e:
        raise DataError(f"{path}: not UTF-8: {e.reason} at byte {e.start}") from None
    found = [_read_line(f"{path}:{number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise DataError(f"{path}: holds no conversation")
    return found


def _read_line(where: str, line: str) -> Demonstration:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as e:
        raise DataError(f"{where}: not valid JSON: {e.msg} at column {e.colno}") from None
    if not isinstance(row, dict) or not isinstance(row.get("messages"), list):
        raise DataError(f'{where}: expected an object with "messages", a list of chat messages')
    messages = []
    for i, message in enumerate(row["messages"]):
        try:
            messages.append(Message.from_openai(message))
        except (ValueError, KeyError, AttributeError, TypeError) as e:
            raise DataError(f"{where}: messages[{i}]: {e}") from None
    if not any(message.role == "assistant" for message in messages):
        raise DataError(f"{where}: no assistant message, so there is nothing to learn from")
    return Demonstration(tuple(messages), tuple(row.get("tools") or ()))


def demonstration_rows(renderer: Renderer, demonstrations: Sequence[Demonstration], max_context: int) -> list[Row]:
    """Tokens to learn by cross-entropy: every assistant token has weight 1. Those over the context are cut."""
    rows = []
    for demonstration in demonstrations:
        ids, mask = renderer.demonstration(demonstration.messages, demonstration.tools)
        ids, mask = ids[:max_context], mask[:max_context].astype(np.float32)
        if mask.any():
            zeros = np.zeros(len(ids), np.float32)
            rows.append(Row(ids, mask, zeros, np.ones(len(ids), np.float32), np.zeros(len(ids), np.int32)))
    if not rows:
        raise ConfigError(f"no demonstration has an assistant token within engine.max_context = {max_context}")
    return rows
