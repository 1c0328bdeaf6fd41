"""The rollout worker behind its handle: in this process or its own, the same play; and what happens when it dies."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import pytest

from agentgym.config import ModelConfig, load_config
from agentgym.errors import ConfigError, ModelError
from agentgym.rollout.worker import WorkerSpec
from agentgym.trainers.checkpoint import save_model
from agentgym.trainers.outbox import Outbox
from agentgym.trainers.rollouts import LocalRollouts, ProcessRollouts, WorkerDied, make_rollouts
from agentgym.trainers.tiny_model import build_model, build_tokenizer
from agentgym.trainers.weights.shared import SharedMemorySync
from agentgym.types import GroupRequest
from agentgym.weights import WeightUpdate


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


def test_both_kinds_play_alike_whatever_is_played_beside(spec: WorkerSpec, started: ProcessRollouts) -> None:
    local = LocalRollouts(spec)
    for rollouts in (local, started):
        rollouts.ready()
        rollouts.submit(requests(4))
    together = played(local, 4)
    assert together == played(started, 4)
    local.submit(requests(1))
    assert played(local, 1) == {"0:0": together["0:0"]}
    assert {"cpu_s", "peak_mem", "env_s"} <= set(local.stats())
    assert set(local.stats()) == set(started.stats())
    local.close()


def test_weights_arrive_before_what_is_submitted_after_them(spec: WorkerSpec, started: ProcessRollouts) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(spec.model_path)
    tensors = dict(model.named_parameters())
    sync = SharedMemorySync(tensors)
    started.update(sync.publish(7, tensors))
    started.submit(requests(1))
    group = started.receive()
    assert {int(v) for t in group.trajectories for v in t.turns[0].completion.versions} == {7}
    sync.close()
    with pytest.raises(FileNotFoundError):
        SharedMemory(sync._memory.name)


def test_a_users_mistake_arrives_as_such() -> None:
    wrong = WorkerSpec(load_config("store", {"engine.kind": "scripted"}), "")
    said = r"engine\.kind = 'scripted' has no model"
    with pytest.raises(ConfigError, match=said):
        LocalRollouts(wrong)
    rollouts = ProcessRollouts(wrong)
    with pytest.raises(ConfigError, match=said):
        rollouts.ready()
    rollouts.close()
    assert not rollouts._process.is_alive()


def test_closing_amid_play_leaves_nothing_under_way(spec: WorkerSpec) -> None:
    rollouts = LocalRollouts(spec)
    rollouts.submit(requests(20))
    rollouts.receive()
    assert rollouts._worker._tasks
    rollouts.close()
    assert not rollouts._worker._tasks
    rollouts.close()  # as after a failure, when it has been closed already


class Unsendable:
    def __reduce__(self) -> str:
        raise ValueError("not for sending")


def test_what_cannot_be_sent_is_a_failure_and_what_has_no_reader_is_let_go() -> None:
    reader, writer = mp.get_context("spawn").Pipe(duplex=False)
    outbox = Outbox(writer)
    outbox.put("group", Unsendable())
    kind, told = reader.recv()
    assert kind == "failed"
    assert "not for sending" in told
    outbox.put("group", bytes(1 << 22))  # more than a pipe holds
    reader.close()
    outbox.flush()


def test_half_a_message_is_none(started: ProcessRollouts, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker leaves that is killed while it sends."""
    reader, writer = mp.get_context("spawn").Pipe(duplex=False)
    os.write(writer.fileno(), (1 << 20).to_bytes(4, "big") + b"the beginning")
    writer.close()
    with monkeypatch.context() as patch:
        patch.setattr(started, "_up", reader)
        with pytest.raises(WorkerDied):
            started.receive()


def test_a_worker_that_hangs_is_ended(spec: WorkerSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentgym.trainers.rollouts.CLOSING", 0.1)
    rollouts = ProcessRollouts(spec)
    os.kill(rollouts._process.pid or 0, signal.SIGSTOP)  # as an env that never gives its thread back
    rollouts.close()
    assert not rollouts._process.is_alive()


def test_what_ends_a_worker_is_told_and_not_the_groups_that_end_with_it(spec: WorkerSpec) -> None:
    rollouts = ProcessRollouts(spec)
    rollouts.ready()
    rollouts.submit(requests(40))
    with pytest.raises(ModelError, match="nowhere"):
        rollouts.update(WeightUpdate(1, path="/nowhere"))
    rollouts.close()


def test_a_dead_worker_is_told_with_what_to_do(started: ProcessRollouts) -> None:
    """The last test: it takes the module's worker."""
    started.ready()
    started.submit(requests(8))
    os.kill(started._process.pid or 0, signal.SIGKILL)
    with pytest.raises(WorkerDied, match=r"ended by SIGKILL .*--resume"):
        played(started, 9)
    with pytest.raises(WorkerDied, match="--resume"):
        started.submit(requests(1))
    started.close()
    assert not started._process.is_alive()


def test_what_does_not_go_together_is_told_at_once(spec: WorkerSpec) -> None:
    config = spec.config.model_copy(deep=True)
    config.rollout.workers = 2
    with pytest.raises(ConfigError, match="more than one takes a cluster"):
        make_rollouts(WorkerSpec(config, spec.model_path))
    config.cluster.kind, config.engine.kind, config.engine.sync = "ray", "sglang", "tensor"
    with pytest.raises(ConfigError, match=r"'tensor' hands over the memory of a GPU .* use distributed, or disk"):
        make_rollouts(WorkerSpec(config, spec.model_path))
