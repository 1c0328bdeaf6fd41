"""Tiny runs under each credit: they leave files from which their credit can be computed again, and can be resumed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentgym as ag
from agentgym.errors import ConfigError
from agentgym.report.plain import PlainReporter
from agentgym.rollout.record import read_trajectories
from agentgym.trainers.check_run import check_run
from tests.trainers.tiny_runs import quick_runs

SMALL: dict[str, Any] = {
    "run": {"live": "off", "processes": 1},
    "model": {"layers": 1, "width": 32, "heads": 2},
    "sft": {"steps": 3, "examples": 32, "batch_size": 8},
    "trainer": {"steps": 2, "checkpoint_every": 1},
    "rollout": {"groups": 2, "group_size": 4, "max_tokens": 12, "dynamic_sampling": 1.0},
    "eval": {"tasks": 0},
}


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with quick_runs():
        yield


class Quiet(PlainReporter):
    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def run(folder: Path, **settings: Any) -> dict[str, Any]:
    return ag.train(SMALL, run__dir=str(folder), reporter=Quiet(), **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"trainer__credit": "reinforce_pp"},
        {"trainer__credit": "gigpo", "trainer__control": "shuffle_rewards"},
        {"trainer__credit": "turn", "env__rewards": {"progress": 0.5}},
        {"trainer__credit": "progress"},
        {"trainer__credit": "progress", "credit__score": "consistency"},
        {"trainer__credit": "bilevel_gae", "credit__critic": "head"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_a_run_can_be_checked_by_its_files(tmp_path: Path, settings: dict[str, Any]) -> None:
    run(tmp_path / "run", **settings)
    assert check_run(tmp_path / "run").problems == []


@pytest.mark.parametrize(("credit", "ended"), [("grpo", 8), ("reinforce_pp", 4)])
def test_what_teaches_in_a_batch_is_not_replaced(tmp_path: Path, credit: str, ended: int) -> None:
    """Every episode of this untrained model fails: nothing for grpo, a group of equals for credit over the batch."""
    run(tmp_path / "run", trainer__credit=credit)
    assert len((tmp_path / "run" / "ledger.jsonl").read_text().splitlines()) == ended


def test_scores_are_in_the_files(tmp_path: Path) -> None:
    run(tmp_path / "run", trainer__credit="progress")
    played = list(read_trajectories(tmp_path / "run" / "trajectories" / "step-00001.jsonl"))
    assert all(t.start_score == 0 for t in played)
    stepped = [turn for t in played for turn in t.turns if turn.observations]
    assert all(turn.score is not None for turn in stepped)


def test_a_likelihood_of_the_answer(tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text(
        "".join(json.dumps({"question": f"What is {n}+1?", "answer": str(n + 1)}) + "\n" for n in range(8))
    )
    env = tmp_path / "own.py"
    env.write_text(
        "from agentgym import ToolEnv\n\nclass Sums(ToolEnv):\n    tools = ('calculator',)\n    holdout = 0\n"
    )
    told = {"env__id": f"{env}:Sums", "env__data": str(tasks), "sft__steps": 0}
    run(tmp_path / "run", trainer__credit="progress", credit__score="gold", **told)
    assert check_run(tmp_path / "run").problems == []
    for t in read_trajectories(tmp_path / "run" / "trajectories" / "step-00001.jsonl"):
        assert t.start_score is not None
        assert 0 < t.start_score < 1


def test_a_critic_is_resumed(tmp_path: Path) -> None:
    told = {"trainer__credit": "bilevel_gae", "credit__critic": "head", "rollout__max_staleness": 0}
    whole = tmp_path / "whole"
    run(whole, **told)
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [row["critic/loss"] >= 0 for row in rows] == [True, True]
    (whole / "checkpoints" / "step-00002").rename(tmp_path / "taken")
    ag.train(resume=str(whole), reporter=Quiet())
    again = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [row["critic/loss"] for row in again] == [row["critic/loss"] for row in rows]
    assert check_run(whole).problems == []


def test_one_s_own_credit(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text("def best(group):\n    return [[t.reward or 0.0 for _ in t.turns] for t in group.trajectories]\n")
    run(tmp_path / "run", trainer__credit=f"{own}:best")
    assert check_run(tmp_path / "run").problems == []


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"trainer__credit": "gpro"}, "did you mean 'grpo'"),
        ({"trainer__credit": "turn"}, "pays at the end only"),
        ({"trainer__credit": "bilevel_gae"}, "value head"),
        ({"trainer__credit": "nowhere.py:best"}, "there is no such file"),
    ],
)
def test_what_cannot_be_is_said_before_anything_begins(tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        run(tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists(), "the mended command may use the folder"
