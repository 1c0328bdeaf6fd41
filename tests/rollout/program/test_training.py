"""Training a program: through the worker's process, with weights that change in mid-run, and out again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentgym as ag
from agentgym.config import load_config
from agentgym.errors import ConfigError
from agentgym.rollout.worker import WorkerSpec, build_agent
from agentgym.trainers import session
from agentgym.types import Outcome
from tests.trainers.tiny_runs import quick_runs, stored

PROGRAM = """
import httpx

async def agent(session, base_url, api_key):
    messages = list(session.messages)
    headers = {"authorization": f"Bearer {api_key}"}
    async with httpx.AsyncClient(base_url=base_url, headers=headers, verify=False, trust_env=False) as http:
        while True:
            answer = (await http.post("chat/completions", json={"messages": messages, "tools": session.tools})).json()
            message = answer["choices"][0]["message"]
            messages.append(message)
            if not message.get("tool_calls"):
                return message["content"]
            messages += await session.step(message)

async def crashes(task):
    raise RuntimeError("no key in the drawer")

NOT_CALLABLE = 3
"""
BROKEN = """
import httpx

async def misspelt(task):
    return taks.prompt

def silent(task):
    return task.answer

async def elsewhere(base_url, api_key):
    headers = {"authorization": f"Bearer {api_key}"}
    async with httpx.AsyncClient(base_url=base_url, headers=headers, verify=False, trust_env=False) as http:
        answer = await http.post("chat/completion", json={"messages": []})
        return answer.json()["choices"][0]["message"]["content"]

async def unable(client, messages):
    asked = {"model": "policy", "messages": messages, "response_format": {"type": "json_object"}}
    return (await client.chat.completions.create(**asked)).choices[0].message.content

def forgotten(task):
    return misspelt(task)
"""
SMALL: dict[str, Any] = {
    "run": {"live": "off"},
    "model": {"layers": 1, "width": 32, "heads": 2},
    "sft": {"steps": 3, "examples": 32, "batch_size": 8},
    "trainer": {"steps": 3, "checkpoint_every": 2},
    "rollout": {"groups": 2, "group_size": 4, "max_tokens": 12, "max_staleness": 1},
    "eval": {"tasks": 4, "greedy": False},
}


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with quick_runs():
        yield


@pytest.fixture
def mine(tmp_path: Path) -> str:
    file = tmp_path / "mine.py"
    file.write_text(PROGRAM)
    return str(file)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_program_is_trained_and_evaluated(tmp_path: Path, mine: str, processes: int) -> None:
    run = tmp_path / "run"
    summary = ag.train(SMALL, rollout__agent=f"{mine}:agent", run__dir=str(run), run__processes=processes)
    assert (summary["steps"], summary["unscored"]) == (3, 0)
    assert summary["trajectories"] >= 24
    # what the learner computes for the recorded tokens is what the engine sampled them with
    assert summary["logprob_gap_max"] < 1e-4
    trained = [t for t in stored(run) if t.outcome is not Outcome.unscored]
    assert trained
    assert {version for t in trained for turn in t.turns for version in turn.completion.versions.tolist()} - {0}
    assert all(t.metrics["branches"] == 0 for t in trained)
    assert json.loads((run / "summary.json").read_text())["steps"] == 3
    assert ag.evaluate(str(run), tasks=3)["n"] == 3  # with the same program: the run's configuration names it


def test_a_program_that_always_crashes_stops_the_run_and_is_named(tmp_path: Path, mine: str) -> None:
    with pytest.raises(Exception, match=r"program_error: RuntimeError: no key in the drawer \(mine.py, line 17\)"):
        ag.train(SMALL, rollout__agent=f"{mine}:crashes", run__dir=str(tmp_path / "run"), run__processes=1)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("misspelt", r"NameError: name 'taks' is not defined.* \(broken.py, line 5\)"),
        ("silent", "it never called the model"),
        ("elsewhere", r"KeyError: 'choices' \(broken.py, line 14\)"),
        ("unable", r"response_format.* \(broken.py, line 18\)"),
        ("forgotten", "it returned a coroutine that nobody awaits"),
    ],
)
def test_a_program_that_is_broken_from_its_first_line_is_told_before_anything_costs_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    def costly(*given: Any, **more: Any) -> None:
        raise AssertionError("the warm start has begun")

    monkeypatch.setattr(session, "gather", costly)
    monkeypatch.setattr(session, "starting_model", costly)
    if name == "unable":
        pytest.importorskip("openai")
    (tmp_path / "broken.py").write_text(BROKEN)
    with pytest.raises(ConfigError, match=rf"rollout.agent = '{tmp_path}/broken.py:{name}'.*{words}"):
        ag.train(SMALL, rollout__agent=f"{tmp_path}/broken.py:{name}", run__dir=str(tmp_path / "run"))
    assert not (tmp_path / "run").exists(), "the mended command may use the same folder"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("agnet", "there is no 'agnet' in .*did you mean 'agent'"),
        ("NOT_CALLABLE", "expected a function, got int"),
    ],
)
def test_a_wrong_name_is_told_before_a_model_is_loaded(mine: str, name: str, words: str) -> None:
    config = load_config(None, [f"rollout.agent={mine}:{name}"])
    with pytest.raises(ConfigError, match=words):
        build_agent(WorkerSpec(config, "no/such/model"))


def test_an_endpoint_cannot_be_behind_the_endpoint(mine: str) -> None:
    config = load_config(None, [f"rollout.agent={mine}:agent"])
    with pytest.raises(ConfigError, match="an endpoint has no token ids"):
        build_agent(WorkerSpec(config, "http://127.0.0.1:9/v1"))
