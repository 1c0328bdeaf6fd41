"""Evaluations while training goes on."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agentgym as ag
from agentgym.report.curve import History
from agentgym.rollout.record import read_trajectories
from agentgym.run_folder import RunFolder
from agentgym.trainers.check_run import check_run
from agentgym.trainers.evaluation import EvalPlan, EvalSet
from agentgym.trainers.interim import Interim
from agentgym.types import Completion, Group, GroupRequest, Message, Outcome, StopReason, Trajectory, Turn
from tests.trainers.tiny_runs import SMALL, Stopper, quick_runs, rows


class Asked:
    """Rollouts that only note what is asked of them."""

    def __init__(self) -> None:
        self.waiting: deque[GroupRequest] = deque()

    def submit(self, requests: Sequence[GroupRequest]) -> None:
        self.waiting += requests

    def played(self, version: int, reward: float) -> Group:
        request = self.waiting.popleft()
        ids = np.array([1, 2], np.int32)
        completion = Completion(ids, np.zeros(2, np.float32), np.array([version - 1, version], np.int32))
        turn = Turn(0, None, ids, completion, Message("assistant", "x"))
        outcome = Outcome.correct if reward else Outcome.incorrect
        name = f"{request.id}/0"
        one = Trajectory(name, str(request.task), "e", (turn,), (), reward, {}, outcome, StopReason.completed)
        return Group(request.id, str(request.task), "e", (one,), request)


def test_when_one_begins_and_what_it_finds() -> None:
    asked: Any = Asked()
    found: list[tuple[int, dict[str, Any]]] = []
    interim = Interim(
        2, EvalPlan((EvalSet("e", "test", 2),), 7), asked, lambda step, _, told: found.append((step, told))
    )
    interim.after(1, 6)
    assert not asked.waiting
    interim.after(2, 6)
    assert [(r.seed, r.split, r.size) for r in asked.waiting] == [(7, "test", 1)] * 2
    assert not interim.take(Group("0:task", "task", "e", ())), "training's own"
    assert interim.take(asked.played(3, 1.0))
    assert not found
    interim.after(4, 6)
    assert len(asked.waiting) == 1, "the former has not ended"
    assert interim.take(asked.played(5, 0.0))
    ((step, told),) = found
    assert (step, told["sampled"], told["versions"]) == (2, 0.5, [2, 5])
    interim.after(6, 6)
    assert not asked.waiting, "there is one after the last step anyway"


@pytest.mark.parametrize(("step", "recorded", "begins"), [(5, [2, 4], False), (5, [2], True), (1, [], False)])
def test_one_that_a_kill_ended_begins_anew(step: int, recorded: list[int], begins: bool) -> None:
    asked: Any = Asked()
    interim = Interim(2, EvalPlan((EvalSet("e", "test", 1),), 0), asked, lambda *told: None)
    interim.again(step, [{"step": done, "eval": "during"} for done in recorded] + [{"step": 5, "eval": "before"}])
    assert bool(asked.waiting) == begins


def test_in_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with quick_runs():
        ag.train({**SMALL, "eval": {"tasks": 6, "every": 1}}, run__dir=str(folder), reporter=Stopper())
    told = [row for row in rows(folder, "metrics.jsonl") if row.get("eval") == "during"]
    assert told, "it came to an end within the run"
    for row in told:
        played = list(read_trajectories(folder / "trajectories" / f"eval-step-{row['step']:05d}.jsonl"))
        assert len({t.task_id for t in played}) == len(played) == row["n"] == 6
        seen = {int(v) for t in played for turn in t.turns for v in turn.completion.versions}
        assert [min(seen), max(seen)] == row["versions"]
        assert min(seen) >= row["step"], "with the weights of its step, or later ones"
    assert len([row for row in rows(folder, "metrics.jsonl") if "reward/mean" in row]) == 4
    assert not check_run(folder).problems
    history = History.of(rows(folder, "metrics.jsonl"))
    assert [step for step, _ in history.during] == [row["step"] for row in told]
    # a run that goes on from an earlier step forgets those that had seen later weights
    run = RunFolder(folder)
    run.rewind(1, ("before",))
    left = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(max(row["versions"]) <= 1 for row in left if row.get("eval") == "during")
