"""Whole runs on a cluster: a program as the agent, an env and tools that fail, a machine that is lost in mid-run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import agentgym as ag
from agentgym.report.plain import PlainReporter
from agentgym.trainers.check_run import check_run
from tests.rollout.program import test_training as programs
from tests.trainers import test_faulty_run as faulty
from tests.trainers.tiny_runs import quick_runs, stored

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


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with quick_runs():
        yield


class Notes(PlainReporter):
    """Keeps what a run says."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def count(self, words: str) -> int:
        return sum(words in note for note in self.notes)


def train(cluster: Any, settings: dict[str, Any], folder: Path, workers: int = 2, **more: Any) -> Any:
    on = {"cluster": {"kind": "ray", "address": cluster.address}}
    rollout = {**settings["rollout"], "workers": workers}
    told = {**settings, **on, "rollout": rollout}
    return ag.train(told, run__dir=str(folder), **more)


def test_a_program_is_trained(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(programs.PROGRAM)
    run = tmp_path / "run"
    summary = train(cluster, programs.SMALL, run, rollout__agent=f"{tmp_path}/mine.py:agent")
    assert (summary["steps"], summary["unscored"]) == (3, 0)
    assert summary["logprob_gap_max"] < 1e-4
    assert {v for t in stored(run) for turn in t.turns for v in turn.completion.versions.tolist()} - {0}
    assert check_run(run).problems == []


def test_an_env_that_raises_and_tools_that_hang(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text(faulty.CODE)
    run, code = tmp_path / "run", f"{tmp_path}/code.py"
    summary = train(cluster, faulty.SMALL, run, env__id=f"{code}:Faulty", rollout__agent=f"{code}:agent")
    faulty.check_faults(run, summary)


def test_a_node_is_lost_and_another_joins(cluster: Any, tmp_path: Path) -> None:
    """The learner learns on; every task ends once."""
    (tmp_path / "envs.py").write_text(SLOW)
    run, steps = tmp_path / "run", 60
    small = {"object_store_memory": 80 << 20}
    extra = cluster.add_node(num_cpus=1, **small)

    class Disturbing(Notes):
        def metrics(self, row: Mapping[str, Any], step: int) -> None:
            super().metrics(row, step)
            if step == 3:
                cluster.remove_node(extra, allow_graceful=False)
                cluster.add_node(num_cpus=1, **small)

    settings = {
        "run": {"live": "off"},
        "model": {"layers": 1, "width": 32, "heads": 2},
        "sft": {"steps": 0},
        "trainer": {"steps": steps, "checkpoint_every": 10},
        "rollout": {"groups": 6, "group_size": 2, "max_tokens": 4, "concurrency": 2},
        "eval": {"tasks": 0},
    }
    notes = Disturbing()
    summary = train(cluster, settings, run, workers=3, reporter=notes, env__id=f"{tmp_path}/envs.py:slow")
    assert summary["steps"] == steps
    assert notes.count("is gone") == 1, notes.notes
    assert notes.count("is on") == 4, "three, and the one that was made again on the machine that joined"
    ledger = [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]
    groups = [row["group"] for row in ledger]
    assert sorted(groups) == sorted(f"{step}/{i}" for step in range(1, steps + 1) for i in range(6))
    assert len({t.id for t in stored(run)}) == len(stored(run)) == summary["trajectories"]
    assert check_run(run).problems == []
