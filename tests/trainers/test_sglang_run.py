"""`agentgym train` on two SGLang replicas: weights arrive, versions are right, a replica that dies is no end."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agentgym as ag
from agentgym.engines.sglang import commands, make
from agentgym.engines.sglang.supervisor import Supervisor
from agentgym.errors import RunError
from agentgym.rollout.record import read_trajectories
from agentgym.trainers import session
from agentgym.trainers.check_run import check_run
from tests.trainers.tiny_runs import quick_runs

FAKE = Path(__file__).parents[1] / "engines" / "sglang" / "fake_server.py"
SMALL: dict[str, Any] = {
    "run": {"live": "off"},
    "model": {"layers": 1, "width": 32, "heads": 2},
    "engine": {"kind": "sglang", "replicas": 2, "slots": 16},
    "sft": {"steps": 20, "examples": 64, "batch_size": 16},
    "trainer": {"steps": 4, "checkpoint_every": 2},
    "rollout": {"groups": 3, "group_size": 4, "max_tokens": 24, "concurrency": 16},
    "eval": {"tasks": 6, "greedy": False},
}
WORDS = """
import agentgym as ag

@ag.register("Words-v0", tools=[], tasks=[ag.Task(f"t{i}", f"Say {i} words.", i) for i in range(24)], holdout=6)
def words(task, answer, episode):
    return len(set(answer)) / max(1, len(answer))
"""
"""Any model earns something here, and not every time the same."""
pytestmark = pytest.mark.xdist_group("SGLang runs")


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with quick_runs():
        yield


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> list[Supervisor]:
    """The fake server in place of the launcher; the supervisors that a run made."""
    monkeypatch.setattr(commands, "LAUNCHER", str(FAKE))
    monkeypatch.setattr(make, "find_python", lambda given: sys.executable)
    made: list[Supervisor] = []

    class Seen(Supervisor):
        def __init__(self, *arguments: Any, **options: Any):
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(make, "Supervisor", Seen)
    return made


def check(folder: Path, steps: int) -> None:
    """Every step's engine logprobs are the learner's own for the version that sampled; no token is from the future."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    learned = [row for row in rows if "logprob_gap" in row]
    assert [row["step"] for row in learned] == list(range(1, steps + 1))
    gaps = [row["logprob_gap"] for row in learned if row["logprob_gap"] is not None]
    assert gaps
    assert max(gaps) < 1e-4
    assert all(np.isfinite(row["reward/mean"]) for row in learned)
    assert max(row["staleness/max"] for row in learned) <= 1  # what is older is recorded, and masked
    seen: set[int] = set()
    for step in range(1, steps + 1):
        for trajectory in read_trajectories(folder / "trajectories" / f"step-{step:05d}.jsonl"):
            for turn in trajectory.turns:
                versions = turn.completion.versions.tolist()
                assert all(0 <= version <= step - 1 for version in versions)
                seen |= set(versions)
    assert len(seen) >= 2
    assert not (folder / "weights").exists()


@pytest.mark.slow
@pytest.mark.parametrize("sync", ["disk", "distributed"])
def test_two_fake_replicas_one_of_which_dies(
    fakes: list[Supervisor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: str
) -> None:
    folder = tmp_path / "run"
    publish = session.Session._publish

    def killing(self: Any) -> None:
        publish(self)
        os.kill(fakes[0].servers[1].pid, signal.SIGKILL)  # during the evaluation before

    monkeypatch.setattr(session.Session, "_publish", killing)
    config = {**SMALL, "run": {"live": "off", "processes": 1, "dir": str(folder)}}
    config["engine"] = {**SMALL["engine"], "sync": sync, "bucket_mib": 1}
    ag.train(config)
    check(folder, 4)
    assert not any(fakes[0].alive(i) for i in range(2))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["steps"] == 4


@pytest.mark.slow
def test_weights_that_never_arrive_stop_the_run(fakes: list[Supervisor], tmp_path: Path) -> None:
    config = {**SMALL, "run": {"live": "off", "processes": 1, "dir": str(tmp_path / "run")}, "eval": {"tasks": 0}}
    config["engine"] = {**SMALL["engine"], "replicas": 1, "server_args": ["--fault", "lose-updates"]}
    with pytest.raises(RunError, match=r"version 0 of the weights did not arrive: SGLang server http://.*does not run"):
        ag.train(config)
    assert not fakes[0].alive(0)


@pytest.mark.sglang
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("cluster", "sync", "update"), [("ray", "disk", "rolling"), ("none", "distributed", "together")]
)
def test_two_real_replicas(tmp_path: Path, cluster: str, sync: str, update: str) -> None:
    """As actors of a Ray cluster, and held by this machine's own rollout worker."""
    if cluster == "ray":
        pytest.importorskip("ray", reason="Ray is not installed: pip install 'agentgym-train[cluster]'")
    folder = tmp_path / "run"
    (tmp_path / "words.py").write_text(WORDS)
    config = {**SMALL, "run": {"live": "off", "dir": str(folder)}, "cluster": {"kind": cluster}, "sft": {"steps": 0}}
    config["engine"] = {**SMALL["engine"], "sync": sync, "update": update}
    config["learner"] = {"lr": 1e-2}
    ag.train(config, env__id=f"{tmp_path}/words.py:words")
    check(folder, 4)
    assert check_run(folder).problems == []
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    learned = [row for row in rows if "logprob_gap" in row]
    assert any(row["reward/std"] > 0 for row in learned), "there was something to learn from"
    assert sum(row.get("worker/engine/deaths", 0) for row in learned) == 0
    for i in range(2):
        assert "Uvicorn running" in (folder / "servers" / f"server-{i}.log").read_text()
