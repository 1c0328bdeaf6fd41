"""Weights on their way to servers: buckets, folders, who may ask for them."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from agentgym.config import load_config
from agentgym.engines.sglang.proof import digests
from agentgym.errors import ConfigError, RunError
from agentgym.trainers.learner import Learner, LearnerOptions
from agentgym.trainers.weights.buckets import buckets_of
from agentgym.trainers.weights.disk import DiskSync
from agentgym.trainers.weights.distributed import DistributedSync
from agentgym.trainers.weights.make import make_sync
from tests.trainers.rows import tiny_moe


def tensors(value: float) -> dict[str, torch.Tensor]:
    return {"a.weight": torch.full((3, 2), float(value)), "b.weight": torch.full((4,), float(value))}


@settings(max_examples=50)
@given(st.lists(st.integers(1, 40), max_size=12), st.integers(4, 100))
def test_buckets_hold_everything_once_in_order_and_within_the_limit(sizes: list[int], limit: int) -> None:
    named = {f"t{i}": torch.zeros(size) for i, size in enumerate(sizes)}
    buckets = buckets_of(named, limit)
    assert [name for bucket in buckets for name in bucket.names] == list(named)
    for bucket in buckets:
        assert bucket.bytes == sum(named[name].nbytes for name in bucket.names)
        assert bucket.bytes <= limit or len(bucket.names) == 1


def test_a_version_is_a_folder_with_the_models_configuration_and_two_are_kept(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors.index.json").write_text("{}")
    sync = DiskSync(tmp_path / "weights", str(model))
    paths = []
    for version in range(4):
        update = sync.publish(version, tensors(version))
        assert update.path is not None
        assert update.proof is not None
        assert update.proof.digests == digests(tensors(version))
        paths.append(Path(update.path))
        assert torch.equal(load_file(paths[-1] / "model.safetensors")["a.weight"], tensors(version)["a.weight"])
        assert sorted(path.name for path in paths[-1].iterdir()) == ["config.json", "model.safetensors"]
    assert [path.exists() for path in paths] == [False, False, True, True]
    again = sync.publish(3, tensors(3))
    assert again.path == str(paths[3])
    sync.close()
    assert not (tmp_path / "weights").exists()


def test_a_version_that_cannot_be_written_leaves_the_former(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = DiskSync(tmp_path / "weights", str(tmp_path / "nowhere"))
    first = sync.publish(0, tensors(0))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(RunError, match="no disk space is left"):
        sync.publish(1, tensors(1))
    assert [path.name for path in (tmp_path / "weights").iterdir()] == [Path(str(first.path)).name]


def talk(sync: DistributedSync, *messages: dict[str, object]) -> list[dict[str, object]]:
    sender = sync.publish(3, tensors(3)).sender
    assert sender is not None
    with socket.create_connection((sender.host, sender.port), timeout=5) as connection:
        stream = connection.makefile("rw")
        answers = []
        for message in messages:
            stream.write(json.dumps({"key": sender.key, **message}) + "\n")
            stream.flush()
            answers.append(json.loads(stream.readline()))
        return answers


def test_the_control_port_wants_the_key_and_sends_no_other_version() -> None:
    sync = DistributedSync(bucket_bytes=24)
    try:
        hello = {"op": "hello"}
        stranger, unknown = talk(sync, {"op": "hello", "key": "guess"}, {"op": "plan", "version": 3})
        assert "not with this key" in str(stranger["error"])
        assert "not with this key" in str(unknown["error"])
        _, plan = talk(sync, hello, {"op": "plan", "version": 3})
        assert plan["buckets"] == [
            {"names": ["a.weight"], "dtypes": ["float32"], "shapes": [[3, 2]]},
            {"names": ["b.weight"], "dtypes": ["float32"], "shapes": [[4]]},
        ]
        _, gone = talk(sync, hello, {"op": "plan", "version": 2})
        assert "version 2 is gone, the learner has come to 3" in str(gone["error"])
        _, wrong = talk(sync, hello, {"op": "dance"})
        assert "unknown request 'dance'" in str(wrong["error"])
    finally:
        sync.close()


def test_a_shared_gpus_memory_is_refused_on_a_cpu(tmp_path: Path) -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    told = load_config(None, {"engine": {"kind": "sglang", "sync": "tensor"}})
    with pytest.raises(ConfigError, match="the learner is on the CPU"):
        make_sync(told, Learner(Qwen3ForCausalLM(config), LearnerOptions()), "", tmp_path)


@pytest.mark.parametrize("sync", ["distributed", "tensor"])
def test_experts_go_by_disk(tmp_path: Path, sync: str) -> None:
    told = load_config(None, {"engine": {"kind": "sglang", "sync": sync}})
    with pytest.raises(ConfigError, match=rf"engine.sync = '{sync}': Qwen3MoeForCausalLM has experts.* use disk"):
        make_sync(told, Learner(tiny_moe(), LearnerOptions()), "", tmp_path)
    disk = load_config(None, {"engine": {"kind": "sglang", "sync": "disk"}})
    make_sync(disk, Learner(tiny_moe(), LearnerOptions()), "", tmp_path).close()


def test_checksums_are_of_what_a_server_holds() -> None:
    named = {f"layers.0.self_attn.{part}_proj.weight": torch.randn(4, 8) for part in "qkv"}
    named |= {f"layers.0.mlp.{part}_proj.weight": torch.randn(48, 8) for part in ("gate", "up")}
    found = digests({**named, "model.embed_tokens.weight": torch.randn(97, 8), "norm.weight": torch.ones(8)})
    assert {name: len(right) for name, right in found.items()} == {
        "layers.0.self_attn.qkv_proj.weight": 1,
        "layers.0.mlp.gate_up_proj.weight": 2,  # as it is, and filled up
        "model.embed_tokens.weight": 2,
        "norm.weight": 1,
    }
