"""Whole runs in which the machinery fails: they end by themselves, with every step done, and no fault is a zero."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import agentgym as ag
from agentgym.trainers.check_run import check_run
from agentgym.types import Outcome
from tests.benchmarks.test_run_benchmarks import BENCHMARKS
from tests.trainers.tiny_runs import quick_runs, rows, stored

CODE = """
import asyncio
import time

import httpx

import agentgym as ag

@ag.tool
async def search(episode: ag.Episode) -> str:
    "Finds something, and now and then nothing, for ever."
    if episode.rng.random() < 0.15:
        await asyncio.sleep(600)
    return "something"

@ag.tool
def read(episode: ag.Episode) -> str:
    "The same, and keeps everybody from going on."
    if episode.rng.random() < 0.05:
        time.sleep(600)
    return "something"

class Faulty(ag.ToolEnv):
    tools = (search, read)

    def __init__(self, **kwargs):
        super().__init__(tasks=[ag.Task(str(i), f"Say {i}.", str(i)) for i in range(64)], holdout=0, **kwargs)

    def setup(self, episode):
        if episode.rng.random() < 0.1:
            raise OSError("the database is away")

    def reward(self, task, answer, episode):
        if episode.rng.random() < 0.05:
            raise LookupError("the grader is away")
        return 0.5 + 0.5 * episode.rng.integers(2)

async def agent(session, base_url, api_key):
    await session.call("search")
    await session.call("read")
    headers = {"authorization": f"Bearer {api_key}"}
    async with httpx.AsyncClient(base_url=base_url, headers=headers, verify=False, trust_env=False) as http:
        answer = (await http.post("chat/completions", json={"messages": session.messages})).json()
    return answer["choices"][0]["message"]["content"]
"""
SMALL: dict[str, Any] = {
    "run": {"live": "off"},
    "model": {"layers": 1, "width": 32, "heads": 2},
    "sft": {"steps": 0},
    "trainer": {"steps": 4, "checkpoint_every": 2},
    "rollout": {"groups": 4, "group_size": 4, "max_tokens": 8, "max_seconds": 20, "tool_seconds": 0.4, "retries": 1},
    "eval": {"tasks": 0},
}


def check_faults(run: Path, summary: Mapping[str, Any]) -> None:
    """That a run of `SMALL` in the env of `CODE` has done all its steps, and scored what could be scored, no more."""
    assert (summary["steps"], summary["trajectories"]) == (4, 4 * 4 * 4)
    told = rows(run, "metrics.jsonl")
    faults = {name for row in told for name in row if name.startswith("fault/")}
    assert {"fault/env_error", "fault/tool_error"} <= faults <= {
        "fault/env_error", "fault/tool_error", "fault/verifier_error"
    }  # fmt: skip
    played = stored(run)
    assert len(played) == 64
    for t in played:
        assert (t.reward is None) == (t.outcome is Outcome.unscored) == (t.error is not None)
        assert t.reward is None or t.reward >= 0.5, "the env pays nobody less"
    assert sum(row["unscored"] for row in told) == summary["unscored"] == sum(t.reward is None for t in played)
    assert check_run(run).problems == []


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_whose_env_raises_and_whose_tools_hang(tmp_path: Path, processes: int) -> None:
    (tmp_path / "code.py").write_text(CODE)
    run, code = tmp_path / "run", f"{tmp_path}/code.py"
    with quick_runs():
        summary = ag.train(
            SMALL, env__id=f"{code}:Faulty", rollout__agent=f"{code}:agent", run__dir=str(run), run__processes=processes
        )
    check_faults(run, summary)


@pytest.mark.slow
def test_a_run_is_killed_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`benchmarks/sigkill_study.py`, one run of it; SIGKILL to the whole group."""
    import importlib
    import random

    monkeypatch.syspath_prepend(str(BENCHMARKS))
    study = importlib.import_module("sigkill_study")
    options = [
        "--trainer.steps=4", "--trainer.checkpoint_every=1", "--sft.steps=4", "--sft.examples=64", "--eval.tasks=8",
        "--rollout.groups=4", "--rollout.group_size=4", "--model.width=32", "--model.layers=1", "--model.heads=2",
    ]  # fmt: skip
    whole = study.undisturbed("store", tmp_path / "whole", options)
    found = study.disturbed("store", tmp_path / "killed", options, whole, random.Random(1), kills=2)
    assert len(found["killed"]) == 2, found
    for outcome in (whole[1], found):
        assert (outcome["steps"], outcome["tasks"]) == (4, 16)
        assert (outcome["skipped"], outcome["ended_twice"], outcome["problems"]) == (0, 0, [])
    # what is left behind is what is looked for: nothing of the group lives on
    attempt = study.Attempt(study.train("store", tmp_path / "third", options), tmp_path / "third.log")
    assert attempt.wait(1.0) is None
    attempt.kill()
    assert attempt.process.returncode == -signal.SIGKILL


def test_tasks_that_are_missing_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    from agentgym.config import load_config
    from agentgym.run_folder import RunFolder

    monkeypatch.syspath_prepend(str(BENCHMARKS))
    study = importlib.import_module("sigkill_study")
    folder = RunFolder.create(tmp_path / "run", load_config("store"))
    first, more = study.asked(folder.path, 8), study.asked(folder.path, 9)
    assert (len(first), len(more), first < more) == (8, 9, True)
    folder.append("ledger.jsonl", {"step": 3, "task": "0:a", "group": "3/0", "outcome": "trained"})
    (folder.path / "ledger.jsonl").open("a").write('{"step": 4, "ta')
    assert study.steps_done(folder.path) == 3
