"""A tiny real model, small environments in files, and what an endpoint on loopback answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentgym.config import ModelConfig
from agentgym.trainers.checkpoint import save_model
from agentgym.trainers.tiny_model import build_model, build_tokenizer
from tests.endpoint_server import Reply, completion
from tests.endpoint_server import serve as serve

COIN = """
import asyncio
import agentgym as ag

TASKS = [ag.Task(f"t{i}", f"Say {i}.", i, kind="even" if i % 2 == 0 else "odd") for i in range(12)]

@ag.register("Coin-v0", tools=[], tasks=TASKS, holdout=0)
async def coin(task, answer, episode):
    await asyncio.sleep(0.03)
    return float((sum(map(ord, answer)) + int(episode.rng.integers(1 << 30))) % 2 == 0)

@ag.register("Length-v0", tools=[], tasks=TASKS[:4], holdout=0)
def length(task, answer, episode):
    return float(len(answer) > 12)

@ag.register("Broken-v0", tools=[], tasks=TASKS[:4], holdout=0)
def broken(task, answer, episode):
    raise RuntimeError("the grader is down")
"""
PARTS = """
import agentgym as ag

STOCK = {"nails": 40, "bolts": 7, "nuts": 19, "screws": 3}

@ag.tool
def count(part: str) -> int:
    \"\"\"How many of a part are in stock.\"\"\"
    return STOCK[part]

TASKS = [ag.Task(part, f"How many {part} are there?", STOCK[part]) for part in STOCK]

@ag.register("Stock-v0", tools=[count], tasks=TASKS, holdout=0)
def parts(task, answer, episode):
    return float(answer.strip() == str(task.answer))
"""


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model folder with random weights: it says anything."""
    folder = tmp_path_factory.mktemp("evaluated") / "model"
    tokenizer = build_tokenizer(["Say 1."])
    made = build_model(len(tokenizer), ModelConfig(layers=1, width=32, heads=2), max_context=96, seed=0)
    save_model(made, tokenizer, folder)
    return str(folder)


@pytest.fixture(scope="session")
def envs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of coin.py (coin, length, broken) and parts.py."""
    folder = tmp_path_factory.mktemp("envs")
    (folder / "coin.py").write_text(COIN)
    (folder / "parts.py").write_text(PARTS)
    return folder


def chat(message: dict[str, Any], finish: str = "stop", tokens: int | None = 5) -> Reply:
    """A chat completion."""
    return 200, completion(message, finish, tokens)


def clerk(body: dict[str, Any], _: int = 0) -> Reply:
    """Plays Stock-v0 as it should be: one call of the tool, then what it said."""
    last = body["messages"][-1]
    if last["role"] == "tool":
        return chat({"content": last["content"]})
    part = last["content"].split()[2]
    call = {"id": "c1", "type": "function", "function": {"name": "count", "arguments": json.dumps({"part": part})}}
    return chat({"content": None, "tool_calls": [call]}, "tool_calls")


@pytest.fixture
def replies() -> Any:
    """The functions above, for the tests of this folder."""

    class Replies:
        chat = staticmethod(chat)
        clerk = staticmethod(clerk)

    return Replies
