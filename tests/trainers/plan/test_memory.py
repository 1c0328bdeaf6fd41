"""The plan's bytes against those that are really there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from agentgym.config import Config, load_config
from agentgym.engines.local import LocalEngine
from agentgym.trainers.batch import Row
from agentgym.trainers.learner import Learner, LearnerOptions
from agentgym.trainers.lora import Lora
from agentgym.trainers.losses import make_loss
from agentgym.trainers.plan.architectures import ARCHITECTURES
from agentgym.trainers.plan.layout import lay_out
from agentgym.trainers.plan.memory import activation_bytes, block_bytes, engine_memory, learner_memory
from agentgym.trainers.plan.model import count
from agentgym.trainers.plan.resolve import make_plan
from agentgym.trainers.policy import Build

TINY: dict[str, Any] = {
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "intermediate_size": 256,
    "vocab_size": 400,
    "tie_word_embeddings": True,
}
MID: dict[str, Any] = {
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "intermediate_size": 768,
    "vocab_size": 4000,
    "tie_word_embeddings": True,
}


def rows(length: int, number: int) -> list[Row]:
    rng = np.random.default_rng(0)
    mask = np.ones(length, np.float32)
    mask[0] = 0
    return [
        Row(
            rng.integers(0, 200, length).astype(np.int32),
            mask,
            np.full(length, -5, np.float32),
            np.full(length, rng.normal(), np.float32),
            np.zeros(length, np.int32),
        )
        for _ in range(number)
    ]


@pytest.mark.parametrize("rank", [0, 4])
def test_the_reference_is_counted(rank: int) -> None:
    """With adapters too: the learner holds base and adapters a second time."""
    if rank:
        pytest.importorskip("peft")
    config = load_config(None, {"learner.kl": 0.01, "model.lora_rank": rank})
    settings = AutoConfig.for_model("qwen3", **TINY)
    planned = learner_memory(config, model := count(settings, config, "", "folder"), lay_out(config, model), 100)
    real = AutoModelForCausalLM.from_config(settings)
    learner = Learner(real, LearnerOptions(kl=0.01), build=Build(lora=Lora(rank)))
    learner.hold_here()
    assert planned.reference == sum(p.nbytes for p in learner.reference.parameters())
    assert planned.state - planned.reference >= sum(p.nbytes for p in learner.model.parameters())


@pytest.mark.parametrize(("sizes", "length", "number"), [(TINY, 128, 4), (MID, 128, 4)], ids=["tiny", "mid"])
def test_a_learner_step_takes_what_was_planned(
    sizes: dict[str, Any], length: int, number: int, live_bytes: Callable[[], Any]
) -> None:
    """Within 15%: two micro-batches of a real step, forward, backward and update, whatever is alive at the worst."""
    torch.manual_seed(0)
    budget = length * number // 2
    config = load_config(None, {"learner.tokens_per_microbatch": budget, "engine.max_context": length})
    settings = AutoConfig.for_model("qwen3", **sizes)
    planned = learner_memory(config, model := count(settings, config, "", "folder"), lay_out(config, model), budget)
    real = AutoModelForCausalLM.from_config(settings)
    learner = Learner(real, LearnerOptions(lr=1e-4, tokens_per_microbatch=budget))
    learner.train(rows(length, number), make_loss(config), seed=0)  # now there is optimizer state
    with live_bytes() as live:
        learner.train(rows(length, number), make_loss(config), seed=0)
    passing = planned.gradients + planned.activations + planned.logits
    assert live.peak == pytest.approx(passing, rel=0.15)
    assert planned.weights == sum(p.nbytes for p in real.parameters())
    state = learner.optimizers[0].state.values()
    assert planned.optimizer == sum(t.nbytes for s in state for k, t in s.items() if k != "step")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["qwen3", "qwen2", "llama"])
def test_a_block_keeps_what_was_counted(kind: str, dtype: str) -> None:
    """Exactly: one block more keeps so many bytes a token more for the backward pass."""
    sizes = {key: value for key, value in MID.items() if kind == "qwen3" or key != "head_dim"}
    config = load_config(None, {"model.dtype": dtype})
    size = getattr(torch, dtype).itemsize
    kept = []
    for layers in (1, 2):
        settings = AutoConfig.for_model(kind, **{**sizes, "num_hidden_layers": layers})
        kept.append(_kept(AutoModelForCausalLM.from_config(settings, dtype=getattr(torch, dtype)).train(), 64))
    assert kept[1] - kept[0] == 64 * block_bytes(count(settings, config, "", "folder"), size)


def test_experts_keep_what_was_counted() -> None:
    """Within 5%: how many tokens an expert gets, and what routing keeps, is rounded."""
    more = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 192}
    kept = []
    for layers in (1, 2):
        settings = AutoConfig.for_model("qwen3_moe", **{**MID, **more, "num_hidden_layers": layers})
        kept.append(_kept(AutoModelForCausalLM.from_config(settings).train(), 64))
    planned = 64 * block_bytes(count(settings, Config(), "", "folder"), 4)
    assert kept[1] - kept[0] == pytest.approx(planned, rel=0.05)


def _kept(model: Any, tokens: int) -> int:
    """Bytes that autograd holds after a forward pass, weights left out."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found: dict[int, int] = {}
    alive: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)  # so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.base_model(input_ids=torch.randint(0, 100, (1, tokens)), use_cache=False)
    return sum(found.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_recomputed_blocks_take_what_was_planned(dtype: str, live_bytes: Callable[[], Any]) -> None:
    """Within 10%, gradients left out."""
    config = load_config(None, {"model.dtype": dtype})
    settings = AutoConfig.for_model("qwen3", **MID)
    model = AutoModelForCausalLM.from_config(settings, dtype=getattr(torch, dtype)).train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with live_bytes() as live:
        hidden = model.base_model(input_ids=torch.randint(0, 100, (1, 256)), use_cache=False).last_hidden_state
        hidden.float().pow(2).mean().backward()
    size = getattr(torch, dtype).itemsize
    planned = activation_bytes(count(settings, config, "", "folder"), size, recompute=True)
    assert live.peak == pytest.approx(256 * planned, rel=0.1)


def test_the_cache_is_that_of_the_engine(tmp_path: Path) -> None:
    settings = AutoConfig.for_model("qwen3", **MID)
    AutoModelForCausalLM.from_config(settings).save_pretrained(tmp_path)
    config = load_config(None, {"model.path": str(tmp_path), "engine.max_context": 100, "engine.slots": 5})
    planned = make_plan(config).engine
    engine = LocalEngine.from_pretrained(str(tmp_path), slots=5, max_context=100)
    cache = engine._runner.cache
    cache.grow(
        settings.num_hidden_layers - 1, *[torch.zeros(1, settings.num_key_value_heads, 1, settings.head_dim)] * 2
    )
    assert planned.sequences == engine.slots
    assert planned.cache == sum(buffer.nbytes for buffer in (*cache.keys, *cache.values))
    assert planned.token * cache.slots * cache.columns == planned.cache


def test_key_value_heads_are_shared_out_but_never_cut() -> None:
    overrides = {"model.path": "Qwen/Qwen3-30B-A3B", "plan.gpu": "H100", "engine.kind": "sglang"}
    config = load_config(None, {**overrides, "engine.max_context": 4096, "model.dtype": "bfloat16"})
    settings = dict(ARCHITECTURES["Qwen/Qwen3-30B-A3B"])
    model = count(AutoConfig.for_model(settings.pop("model_type"), **settings), config, "", "table")
    tokens = []
    for each in (1, 2, 4, 8):
        config.engine.gpus_each = each
        tokens.append(engine_memory(config, model, lay_out(config, model), 0, 2048).token)
    assert tokens == [2 * 48 * heads * 128 * 2 for heads in (4, 2, 1, 1)]
