"""What a config leaves open is read off the model and the memory there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from agentgym.config import Config
from agentgym.engines import size
from agentgym.engines.local import LocalEngine
from agentgym.engines.make import make_engine
from agentgym.errors import ModelError

CPU = torch.device("cpu")


@pytest.mark.parametrize(("positions", "asked", "expected"), [(512, 0, 512), (40960, 0, 4096), (40960, 8192, 8192)])
def test_the_context_is_the_models_unless_asked_for(positions: int, asked: int, expected: int) -> None:
    config = AutoConfig.for_model("qwen3", max_position_embeddings=positions)
    assert size.context_of(config, asked) == expected


def test_the_context_stays_where_positions_do_not_change_with_the_batch() -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 1024}
    config = AutoConfig.for_model("llama", max_position_embeddings=8192, rope_parameters=rope)
    assert size.context_of(config) == 1024


def test_bytes_of_a_token_are_those_of_the_cache(given: Any) -> None:
    engine = LocalEngine(given.build_model("qwen3"), slots=3, max_context=31)
    cache = engine._runner.cache
    like = torch.zeros(1, 1, 1, 8)
    cache.grow(2, like, like)
    held = sum(buffer.nbytes for buffer in (*cache.keys, *cache.values))
    assert held == size.token_bytes(engine._runner.model) * 3 * cache.columns


def test_no_more_slots_than_memory_has_room_for(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = given.build_model("qwen3")
    each = size.token_bytes(model) * 64
    monkeypatch.setattr(size, "free_bytes", lambda device: 20 * each)
    assert size.slots_of(model, 96, 64, CPU) == 10
    assert size.slots_of(model, 4, 64, CPU) == 4
    assert LocalEngine(model, slots=96, max_context=64).slots == 10
    monkeypatch.setattr(size, "free_bytes", lambda device: each - 1)
    with pytest.raises(ModelError, match=r"engine\.max_context = 64: .* lower it"):
        size.slots_of(model, 1, 64, CPU)


def test_free_memory_is_a_plausible_number() -> None:
    assert 1 << 20 < size.free_bytes(CPU) < 1 << 50


@pytest.mark.parametrize(("slots", "concurrency"), [(96, 3), (3, 96)])
def test_no_more_slots_than_can_be_under_way(given: Any, tmp_path: Path, slots: int, concurrency: int) -> None:
    given.build_model("qwen3").save_pretrained(tmp_path)
    config = Config.model_validate(
        {"engine": {"slots": slots, "max_context": 31}, "rollout": {"concurrency": concurrency}}
    )
    engine = make_engine(config, str(tmp_path))
    assert isinstance(engine, LocalEngine)
    assert engine.slots == 3
