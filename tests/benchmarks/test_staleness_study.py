"""The staleness study's own arithmetic: what it reads off a run, means and intervals over seeds."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

import agentgym as ag
from agentgym.rollout.record import read_trajectories
from tests.trainers.tiny_runs import SMALL, Stopper, quick_runs


@pytest.fixture(scope="module")
def study() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        return importlib.import_module("staleness_study")


def test_students_interval_by_hand(study: Any) -> None:
    # mean 2, standard deviation 1, of three: 4.303 / sqrt(3)
    assert study.over_seeds([1.0, 2.0, 3.0]) == {"mean": 2.0, "interval": pytest.approx([-0.4843, 4.4843], abs=1e-4)}
    assert study.over_seeds([0.5]) == {"mean": 0.5, "interval": None}


def test_what_is_read_off_a_run(study: Any, tmp_path: Path) -> None:
    after = {"sampled": 0.5, "greedy": None, "n": 100}
    summary = {"before": {"sampled": 0.1}, "after": after, "steps": 2, "trajectories": 64, "rl_cpu_s": 3.0}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    step = {"staleness/mean": 1.0, "staleness/max": 2.0, "masked_frac": 0.25, "clip_frac": None, "skipped_updates": 0}
    rows = [{"eval": "before"}, {**step, "step": 1}, {**step, "step": 2, "staleness/mean": 3.0, "skipped_updates": 1}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = study.figures(tmp_path)
    assert (found["staleness_mean"], found["staleness_max"], found["skipped_updates"]) == (2.0, 2.0, 1)
    assert found["interval"] == pytest.approx([0.4038, 0.5962], abs=1e-4)


def test_differences_are_taken_seed_by_seed(study: Any) -> None:
    def run(success: float) -> dict[str, float]:
        return {"sampled": success, "staleness_mean": 1.0, "staleness_max": 2.0}

    runs = {0: {"grpo": {0: run(0.8), 4: run(0.7)}}, 1: {"grpo": {0: run(0.6), 4: run(0.5)}}}
    found = study.compared(runs)["grpo"]
    assert found[0]["difference"]["mean"] == 0
    assert found[4]["difference"]["mean"] == pytest.approx(-0.1)
    assert found[4]["difference"]["interval"] == pytest.approx([-0.1, -0.1])
    assert found[4]["success"]["mean"] == pytest.approx(0.6)
    assert "-0.100 [-0.100, -0.100]" in study.shown(found[4]["difference"])


def test_tokens_that_are_held_back_are_all_of_one_age(study: Any, tmp_path: Path) -> None:
    settings = {**SMALL, "trainer": {"steps": 5}, "rollout": {**SMALL["rollout"], "max_staleness": 2}}
    with quick_runs(), study.held_back(2):
        summary = ag.train(settings, run__dir=str(tmp_path / "run"), reporter=Stopper())
    for step in range(5):
        played = read_trajectories(tmp_path / "run" / "trajectories" / f"step-{step + 1:05d}.jsonl")
        assert {int(v) for t in played for turn in t.turns for v in turn.completion.versions} == {max(0, step - 2)}
    after = read_trajectories(tmp_path / "run" / "trajectories" / "eval-after.jsonl")
    assert {int(v) for t in after for turn in t.turns for v in turn.completion.versions} == {5}, (
        "the model that is saved"
    )
    assert 0 < summary["logprob_gap_max"] < 1e-3, "they are labelled with what sampled them"
