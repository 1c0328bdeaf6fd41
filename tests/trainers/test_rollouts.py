"""The rollout worker behind its handle: in this process or its own, the same play; and what happens when it dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentgym.config import ModelConfig, load_config
from agentgym.errors import AgentGymError, ModelError
from agentgym.rollout.worker import WorkerSpec
from agentgym.trainers.checkpoint import save_model
from agentgym.trainers.rollouts import LocalRollouts, ProcessRollouts, RolloutError
from agentgym.trainers.tiny_model import build_model, build_tokenizer
from agentgym.trainers.weights.shared import SharedMemorySync
from agentgym.types import GroupRequest


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> WorkerSpec:
    folder = tmp_path_factory.mktemp("model") / "model"
    tokenizer = build_tokenizer(["What is pear*47+12?"])
    model = build_model(len(tokenizer), ModelConfig(layers=1, width=32, heads=2), max_context=96, seed=0)
    save_model(model, tokenizer, folder)
    return WorkerSpec(load_config("store", {"rollout.max_tokens": 8}), str(folder))


@pytest.fixture(scope="module")
def started(spec: WorkerSpec) -> Iterator[ProcessRollouts]:
    """A worker just started: the first test meets it before it is ready."""
    rollouts = ProcessRollouts(spec)
    yield rollouts
    rollouts.close()


def requests(count: int) -> list[GroupRequest]:
    return [GroupRequest(f"0:{i}", "agentgym/Store-v0", i, 3, seed=5) for i in range(count)]


def played(rollouts: Any, count: int) -> dict[str, list[list[int]]]:
    groups = [rollouts.receive() for _ in range(count)]
    return {g.id: [t.turns[0].completion.ids.tolist() for t in g.trajectories] for g in groups}


def test_what_is_not_waited_for_is_not_lost(started: ProcessRollouts) -> None:
    assert started.stats()["cpu_s"] > 0  # asked before the worker was ready
    started.ready()
    started.submit(requests(2))
    started.stats()  # groups may come up while this is answered
    assert len(played(started, 2)) == 2


def test_both_kinds_play_alike(spec: WorkerSpec, started: ProcessRollouts) -> None:
    local = LocalRollouts(spec)
    for rollouts in (local, started):
        rollouts.ready()
        rollouts.submit(requests(4))
    assert played(local, 4) == played(started, 4)
    local.close()


def test_weights_arrive_before_what_is_submitted_after_them(spec: WorkerSpec, started: ProcessRollouts) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(spec.model_path)
    tensors = dict(model.named_parameters())
    before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    sync = SharedMemorySync(tensors)
    started.update(sync.publish(7, tensors))
    started.submit(requests(1))
    group = started.receive()
    assert {int(v) for t in group.trajectories for v in t.turns[0].completion.versions} == {7}
    sync.close()
    if before:
        assert not {name for name in set(os.listdir("/dev/shm")) - before if name.startswith("psm")}


def test_a_dead_worker_is_told_with_what_to_do_and_nothing_is_left_running(spec: WorkerSpec) -> None:
    rollouts = ProcessRollouts(spec)
    rollouts.ready()
    rollouts.submit(requests(8))
    os.kill(rollouts._process.pid or 0, signal.SIGKILL)
    with pytest.raises(RolloutError, match="--resume"):
        played(rollouts, 9)
    rollouts.close()
    assert not rollouts._process.is_alive()


def test_a_users_mistake_arrives_as_such(spec: WorkerSpec, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    rollouts = ProcessRollouts(WorkerSpec(spec.config, str(tmp_path)))
    with pytest.raises((ModelError, RolloutError)) as error:
        rollouts.ready()
    assert isinstance(error.value, AgentGymError)
    rollouts.close()
