"""Rollout workers on a real Ray cluster of several nodes: in `make test-ray`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agentgym as ag
from agentgym.config import Config
from agentgym.errors import ConfigError, ModelError
from agentgym.report.plain import PlainReporter
from agentgym.rollout.worker import WorkerSpec
from agentgym.trainers.check_run import check_run
from agentgym.trainers.checkpoint import save_model
from agentgym.trainers.cluster.rollouts import RayRollouts
from agentgym.trainers.stall import StallWatch
from agentgym.trainers.tiny_model import build_model, build_tokenizer
from agentgym.types import Group, GroupRequest
from agentgym.weights import WeightUpdate
from tests.trainers.tiny_runs import quick_runs

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'agentgym-train[cluster]'")
pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]
ENVS = """
import asyncio
import agentgym as ag
from beside import number

@ag.register("Slow-v0", tools=[], tasks=[ag.Task(f"t{i}", f"Say {i}.", i) for i in range(40)], holdout=0)
async def slow(task, answer, episode):
    await asyncio.sleep(0.5)
    return float(episode.rng.integers(number))

@ag.register("Slower-v0", tools=[], tasks=[ag.Task("t0", "Say 0.", 0), ag.Task("t1", "Say 1.", 1)], holdout=0)
async def slower(task, answer, episode):
    await asyncio.sleep(4)
    return 0.0
"""


@pytest.fixture(scope="module")
def cluster(make_cluster: Callable[..., Any]) -> Any:
    return make_cluster(*[{"num_cpus": 1}] * 2)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("driver")
    (folder / "envs.py").write_text(ENVS)
    (folder / "beside.py").write_text("number = 2\n")
    tokenizer = build_tokenizer(["Say 1."])
    config = Config()
    config.model.layers, config.model.width, config.model.heads = 1, 32, 2
    save_model(build_model(len(tokenizer), config.model, max_context=96, seed=0), tokenizer, folder / "model")
    return folder


def config_of(home: Path, cluster: Any, **more: Any) -> Config:
    config = Config()
    config.env.id = f"{home}/envs.py:slow"
    config.cluster.kind, config.cluster.address = "ray", cluster.address
    config.rollout.workers, config.rollout.max_tokens, config.engine.max_context = 2, 4, 96
    config.rollout.concurrency = 4
    for name, value in more.items():
        setattr(config.rollout, name, value)
    return config


def asked(config: Config, count: int) -> list[GroupRequest]:
    return [GroupRequest(f"0:t{i}", config.env.id, i, 2, seed=0) for i in range(count)]


def versions(groups: list[Group]) -> set[int]:
    return {int(v) for g in groups for t in g.trajectories for turn in t.turns for v in turn.completion.versions}


def test_groups_come_from_all_workers_and_weights_arrive(home: Path, cluster: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    notes: list[str] = []
    config = config_of(home, cluster)
    rollouts = RayRollouts(WorkerSpec(config, str(home / "model")), notes.append)
    try:
        rollouts.ready()
        assert len(notes) == 2
        rollouts.submit(asked(config, 6))
        first = [rollouts.receive() for _ in range(6)]
        assert sorted(group.id for group in first) == [f"0:t{i}" for i in range(6)]
        assert not [t.error for group in first for t in group.trajectories if t.error], "its files came along"
        assert versions(first) == {0}
        model = AutoModelForCausalLM.from_pretrained(home / "model")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        rollouts.update(WeightUpdate(7, "full", dict(model.named_parameters())))
        rollouts.submit(asked(config, 4))
        second = [rollouts.receive() for _ in range(4)]
        assert versions(second) == {7}
        logprobs = np.concatenate(
            [turn.completion.logprobs for g in second for t in g.trajectories for turn in t.turns]
        )
        assert np.allclose(logprobs, -np.log(model.config.vocab_size), atol=1e-5), "weights of zero choose evenly"
        assert rollouts.stats()["cpu_s"] > 0
    finally:
        rollouts.close()


def test_what_workers_are_at_is_told_where_groups_are_waited_for(home: Path, cluster: Any) -> None:
    config = config_of(home, cluster)
    config.env.id = f"{home}/envs.py:slower"
    notes: list[str] = []
    rows: list[Any] = []
    watch = StallWatch(0.1, notes.append, rows.append)
    rollouts = RayRollouts(WorkerSpec(config, str(home / "model")), watch=watch)
    try:
        rollouts.ready()
        rollouts.submit(asked(config, 2))
        for _ in range(2):
            rollouts.receive()
    finally:
        rollouts.close()
    seen = [row["situation"] for row in rows if row["situation"]]
    assert seen, notes
    assert any(phase["what"] in ("reward", "engine", "env") for row in seen for phase in row["phases"])
    assert max(row["room"] for row in seen) == 8, "of two workers"
    assert any("episodes under way" in note for note in notes)


def test_a_node_is_lost_and_another_joins(home: Path, cluster: Any) -> None:
    notes: list[str] = []
    config = config_of(home, cluster)
    extra = cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    config.rollout.workers = 3
    rollouts = RayRollouts(WorkerSpec(config, str(home / "model")), notes.append)
    try:
        rollouts.ready()
        rollouts.submit(asked(config, 24))
        got = [rollouts.receive() for _ in range(3)]
        cluster.remove_node(extra, allow_graceful=False)
        got += [rollouts.receive() for _ in range(21)]
        assert sorted(group.id for group in got) == sorted(f"0:t{i}" for i in range(24)), "none is lost, none twice"
        assert any("is gone" in note for note in notes)
        cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
        until = time.monotonic() + 150
        while time.monotonic() < until and sum("is on" in note for note in notes) < 4:
            rollouts.arrived()
            time.sleep(0.2)
        assert sum("is on" in note for note in notes) == 4, notes
        rollouts.submit(asked(config, 3))
        assert len({rollouts.receive().id for _ in range(3)}) == 3
    finally:
        rollouts.close()


def test_a_whole_run(home: Path, cluster: Any, tmp_path: Path) -> None:
    with quick_runs():
        summary = ag.train(
            {
                "cluster": {"kind": "ray", "address": cluster.address},
                "run": {"live": "off"},
                "model": {"layers": 1, "width": 32, "heads": 2},
                "trainer": {"steps": 3},
                "rollout": {"groups": 4, "group_size": 2, "max_tokens": 4, "workers": 2},
                "eval": {"tasks": 4},
            },
            env__id=f"{home}/envs.py:slow",
            run__dir=str(tmp_path / "run"),
            reporter=PlainReporter(),
        )
    assert summary["steps"] == 3
    assert summary["logprob_gap_max"] < 1e-4
    assert check_run(tmp_path / "run").problems == []


def test_more_than_there_is(home: Path, cluster: Any) -> None:
    config = config_of(home, cluster, cpus_each=64.0)
    config.cluster.patience = 1.0
    with pytest.raises(ConfigError, match=r"no room for 2 .* 128 CPU and 0 GPU are asked for, \d and 0 are there"):
        RayRollouts(WorkerSpec(config, str(home / "model")))


def test_a_model_that_cannot_be_loaded(home: Path, cluster: Any) -> None:
    (home / "broken").mkdir()
    rollouts = RayRollouts(WorkerSpec(config_of(home, cluster), str(home / "broken")))
    try:
        with pytest.raises(ModelError):
            rollouts.ready()
    finally:
        rollouts.close()


def test_no_cluster_there(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "agentgym", "train", "--cluster=ray", "--cluster.address=127.0.0.1:9"]
    done = subprocess.run(
        [*line, "--run.live=off", f"--run.dir={tmp_path}/run", "--sft.steps=0"],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "no Ray cluster can be joined there" in done.stderr
    assert "Traceback" not in done.stderr


OWN = """
import ray
from agentgym.config import load_config
from agentgym.trainers.cluster.ray_cluster import RayCluster
cluster = RayCluster(load_config(None, {"cluster": {"kind": "ray"}}))
print("nodes", len(ray.nodes()))
cluster.close()
"""


def test_a_cluster_of_its_own_beside_another(cluster: Any) -> None:
    """Without an address: whatever else runs on this machine, or is meant by the shell's own setting."""
    there = {**os.environ, "RAY_ADDRESS": cluster.address}
    done = subprocess.run(
        [sys.executable, "-c", OWN], capture_output=True, text=True, timeout=200, check=False, env=there
    )
    assert done.returncode == 0, done.stderr
    assert "nodes 1" in done.stdout.splitlines()
