"""Whole runs on a cluster: a program as the agent, an env and tools that fail, a machine that is lost in mid-run."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import agentgym as ag
from agentgym.report.plain import PlainReporter
from agentgym.rollout.record import read_trajectories
from agentgym.trainers import origin, session
from agentgym.trainers.check_run import check_run
from agentgym.types import Outcome
from tests.rollout.program import test_training as programs
from tests.trainers import test_faulty_run as faulty

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'agentgym-train[cluster]'")
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(400)]
SLOW = """
import asyncio

import agentgym as ag

@ag.register("Slow-v0", tools=[], tasks=[ag.Task(f"t{i}", f"Say {i}.", i) for i in range(40)], holdout=0)
async def slow(task, answer, episode):
    await asyncio.sleep(0.5)
    return float(episode.rng.integers(2))
"""


@pytest.fixture(scope="module")
def cluster(make_cluster: Callable[..., Any]) -> Any:
    return make_cluster(*[{"num_cpus": 1}] * 2)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "SEEN_TASKS", 32)
    monkeypatch.setattr(session, "draw_curve", lambda folder: None)


class Notes(PlainReporter):
    """Keeps what a run says."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def count(self, words: str) -> int:
        return sum(words in note for note in self.notes)


def train(cluster: Any, settings: dict[str, Any], folder: Path, workers: int = 2, **more: Any) -> tuple[Any, Notes]:
    notes = Notes()
    on = {"cluster": {"kind": "ray", "address": cluster.address}}
    rollout = {**settings["rollout"], "workers": workers}
    told = {**settings, **on, "rollout": rollout}
    return ag.train(told, run__dir=str(folder), reporter=notes, **more), notes


def stored(run: Path) -> list[Any]:
    return [t for file in sorted((run / "trajectories").glob("*.jsonl")) for t in read_trajectories(file)]


def test_a_program_is_trained(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(programs.PROGRAM)
    run = tmp_path / "run"
    summary, _ = train(cluster, programs.SMALL, run, rollout__agent=f"{tmp_path}/mine.py:agent")
    assert (summary["steps"], summary["unscored"]) == (3, 0)
    assert summary["logprob_gap_max"] < 1e-4
    assert {v for t in stored(run) for turn in t.turns for v in turn.completion.versions.tolist()} - {0}
    assert check_run(run).problems == []


def test_an_env_that_raises_and_tools_that_hang(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text(faulty.CODE)
    run, code = tmp_path / "run", f"{tmp_path}/code.py"
    summary, _ = train(cluster, faulty.SMALL, run, env__id=f"{code}:Faulty", rollout__agent=f"{code}:agent")
    assert (summary["steps"], summary["trajectories"]) == (4, 4 * 4 * 4)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    faults = {name for row in rows for name in row if name.startswith("fault/")}
    assert {"fault/env_error", "fault/tool_error"} <= faults <= {
        "fault/env_error", "fault/tool_error", "fault/verifier_error"
    }  # fmt: skip
    played = stored(run)
    assert len(played) == 64
    for t in played:
        assert (t.reward is None) == (t.outcome is Outcome.unscored) == (t.error is not None)
        assert t.reward is None or t.reward >= 0.5, "the env pays nobody less"
    assert sum(row["unscored"] for row in rows) == summary["unscored"] == sum(t.reward is None for t in played)
    assert check_run(run).problems == []


def test_a_node_is_lost_and_another_joins(cluster: Any, tmp_path: Path) -> None:
    """The learner learns on; every task ends once."""
    (tmp_path / "envs.py").write_text(SLOW)
    run = tmp_path / "run"
    small = {"object_store_memory": 80 << 20}
    extra = cluster.add_node(num_cpus=1, **small)
    failed: list[BaseException] = []

    def disturb() -> None:
        try:
            ledger = run / "ledger.jsonl"
            until = time.monotonic() + 300
            while not ledger.exists() or '"step": 2' not in ledger.read_text():
                assert time.monotonic() < until
                time.sleep(0.1)
            cluster.remove_node(extra, allow_graceful=False)
            cluster.add_node(num_cpus=1, **small)
        except BaseException as e:
            failed.append(e)

    disturbing = threading.Thread(target=disturb, daemon=True)
    disturbing.start()
    settings = {
        "run": {"live": "off"},
        "model": {"layers": 1, "width": 32, "heads": 2},
        "sft": {"steps": 0},
        "trainer": {"steps": STEPS, "checkpoint_every": 10},
        "rollout": {"groups": 6, "group_size": 2, "max_tokens": 4, "concurrency": 2},
        "eval": {"tasks": 0},
    }
    summary, notes = train(cluster, settings, run, workers=3, env__id=f"{tmp_path}/envs.py:slow")
    disturbing.join(60)
    assert not disturbing.is_alive()
    assert not failed
    assert summary["steps"] == STEPS
    assert notes.count("is gone") == 1, notes.notes
    assert notes.count("is on") == 4, "three, and the one that was made again on the machine that joined"
    ledger = [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]
    trained = [row["group"] for row in ledger if row["outcome"] == "trained"]
    assert len(trained) == len(set(trained))
    assert {row["step"] for row in ledger} >= set(range(1, STEPS + 1))
    assert len({t.id for t in stored(run)}) == len(stored(run)) == summary["trajectories"]
    assert check_run(run).problems == []


STEPS = 60
