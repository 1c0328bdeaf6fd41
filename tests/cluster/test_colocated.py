"""Engine and learner in turn on one "GPU" of a Ray cluster, with fake servers that end themselves where the order is
wrong: in `make test-ray`."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import agentgym as ag
from agentgym.config import Config
from agentgym.errors import RunError
from agentgym.report.plain import PlainReporter
from agentgym.rollout.worker import WorkerSpec
from agentgym.trainers import placement
from agentgym.trainers.check_run import check_run
from agentgym.trainers.checkpoint import save_model
from agentgym.trainers.cluster.rollouts import RayRollouts
from agentgym.trainers.tiny_model import build_model, build_tokenizer
from agentgym.trainers.weights.handed import HandedSync
from agentgym.types import GroupRequest
from tests.cluster.playing import ENVS
from tests.trainers.tiny_runs import quick_runs

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'agentgym-train[cluster]'")
pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def cluster(make_cluster: Callable[..., Any]) -> Any:
    return make_cluster({"num_cpus": 1}, {"num_cpus": 1, "num_gpus": 1})


@pytest.fixture
def settings(tmp_path: Path, cluster: Any, fake_python: str) -> dict[str, Any]:
    (tmp_path / "envs.py").write_text(ENVS)
    return {
        "env": {"id": f"{tmp_path}/envs.py:say"},
        "cluster": {"kind": "ray", "address": cluster.address, "placement": "colocated"},
        "run": {"live": "off", "dir": str(tmp_path / "run")},
        "model": {"layers": 1, "width": 32, "heads": 2},
        "engine": {"kind": "sglang", "python": fake_python, "max_context": 96, "timeout": 20.0},
        "trainer": {"steps": 3},
        "rollout": {"groups": 4, "group_size": 2, "max_tokens": 4, "max_staleness": 0},
        "eval": {"tasks": 4},
    }


def test_a_run_in_turns(settings: dict[str, Any], tmp_path: Path) -> None:
    with quick_runs(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(placement, "_why_not_here", lambda learner: "")  # that it has no GPU
        summary = ag.train(settings, reporter=PlainReporter())
    assert summary["steps"] == 3
    assert check_run(tmp_path / "run").problems == []
    log = (tmp_path / "run" / "servers" / "server-0.log").read_text()
    told = re.findall(r"memory: (\w+)(?: v(\d+))?", log)
    assert [word for word, _ in told] == ["released", "resumed", "weights"] * (len(told) // 3)
    # the evaluation before, the first publication, three steps, the evaluation after
    assert [int(version) for _, version in told if version] == [0, 0, 1, 2, 3, 3]


def test_an_engine_that_is_lost_while_the_learner_learns_comes_back_in_its_own_turn(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    tokenizer = build_tokenizer(["Say 1."])
    config = Config.model_validate(settings)
    model = build_model(len(tokenizer), config.model, max_context=96, seed=0)
    save_model(model, tokenizer, tmp_path / "model")
    notes: list[str] = []
    rollouts, sync = RayRollouts(WorkerSpec(config, str(tmp_path / "model")), notes.append), HandedSync()
    requests = [GroupRequest(f"0:t{i}", config.env.id, i, 2, seed=0) for i in range(2)]
    try:
        rollouts.ready()
        fleet = rollouts.fleet
        assert fleet is not None
        rollouts.update(sync.publish(1, dict(model.named_parameters())))
        rollouts.submit(requests)
        with pytest.raises(RunError, match="wanted while 2 groups are being played"):
            rollouts.release_memory()
        for _ in requests:
            rollouts.receive()
        rollouts.release_memory()
        actor = int(next(note for note in notes if "replica 0 is on" in note).split()[-2].rstrip(","))
        os.kill(actor, signal.SIGKILL)
        until = time.monotonic() + 60
        while not any("is lost" in note for note in notes):
            assert time.monotonic() < until, notes
            time.sleep(0.05)
        time.sleep(2.0)
        assert fleet.serving == []
        assert sum("replica 0 is on" in note for note in notes) == 1, "its memory is the learner's now"
        rollouts.resume_memory()
        rollouts.update(sync.publish(2, dict(model.named_parameters())))
        rollouts.submit(requests)
        groups = [rollouts.receive() for _ in requests]
        versions = {int(v) for g in groups for t in g.trajectories for n in t.turns for v in n.completion.versions}
        assert versions == {2}
        assert sum("replica 0 is on" in note for note in notes) == 2
    finally:
        rollouts.close()
