"""The gradient is the same however rows are laid out, cut, or computed: fp32, relative difference at most 1e-5."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from agentgym.errors import ModelError
from agentgym.trainers.batch import Row
from agentgym.trainers.learner import Learner, LearnerOptions
from agentgym.trainers.losses.grpo import grpo_loss
from agentgym.trainers.policy import Build
from tests.trainers.rows import SIZES, rows, tiny, tiny_moe

PADDED, PACKED = Build(layout="padded"), Build(layout="packed")


def gradient(model: Any, given: Sequence[Row], build: Build, budget: int = 10_000) -> torch.Tensor:
    """What the first update of a learner sees."""
    learner = Learner(model, LearnerOptions(lr=1e-9, tokens_per_microbatch=budget, grad_clip=1e9), build=build)
    seen: list[torch.Tensor] = []
    trained = [p for p in model.parameters() if p.requires_grad]
    learner.optimizers[0].step = lambda: seen.append(  # type: ignore[method-assign]
        torch.cat([p.grad.flatten() for p in trained if p.grad is not None])
    )
    learner.train(given, grpo_loss, seed=0)
    return seen[0]


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / one.norm())


def mistral() -> Any:
    """A sliding window shorter than the rows."""
    torch.manual_seed(0)
    return MistralForCausalLM(MistralConfig(**SIZES, sliding_window=8))


def gemma() -> Any:
    """Capped attention logits, and layers with and without a window."""
    torch.manual_seed(0)
    return Gemma2ForCausalLM(Gemma2Config(**SIZES, sliding_window=8, query_pre_attn_scalar=8))


def gpt_oss() -> Any:
    """Attention sinks, a window, experts."""
    torch.manual_seed(0)
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2}
    return GptOssForCausalLM(GptOssConfig(**{**SIZES, "tie_word_embeddings": False}, **experts, sliding_window=8))


@pytest.mark.parametrize("make", [tiny, tiny_moe, mistral, gemma, gpt_oss])
def test_packed_or_padded(make: Callable[[], Any]) -> None:
    given = rows(12)
    assert apart(gradient(make(), given, PADDED), gradient(make(), given, PACKED)) < 1e-5


@pytest.mark.parametrize("build", [PADDED, PACKED], ids=["padded", "packed"])
def test_one_micro_batch_or_many(build: Build) -> None:
    given = rows(12)
    whole = gradient(tiny(), given, build)
    for budget in (64, 1):  # 1: each row is above the budget, and alone
        assert apart(whole, gradient(tiny(), given, build, budget)) < 1e-5


@pytest.mark.parametrize("build", [PADDED, PACKED], ids=["padded", "packed"])
def test_recomputed_or_kept(build: Build) -> None:
    given = rows(12)
    model = tiny()
    again = gradient(model, given, replace(build, recompute=True))
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    assert apart(gradient(tiny(), given, build), again) < 1e-5


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.timeout(400)
@pytest.mark.parametrize("build", [PADDED, PACKED], ids=["padded", "packed"])
def test_compiled_or_not(build: Build) -> None:
    """And micro-batches of other lengths and numbers of rows have no program of their own."""
    from torch import _dynamo as dynamo

    given = rows(12)
    dynamo.reset()
    counted = dynamo.utils.counters["stats"]
    compiled = gradient(tiny(), given, replace(build, compile=True), budget=64)
    graphs = counted["unique_graphs"]
    assert graphs > 0
    assert apart(gradient(tiny(), given, build), compiled) < 1e-5
    again = gradient(tiny(), given, replace(build, compile=True), budget=200)
    assert apart(compiled, again) < 1e-5
    assert counted["unique_graphs"] == graphs


def test_prefixes_that_are_shared_or_repeated() -> None:
    """A row of several turns, against a row a turn that repeats what came before it."""
    merged = rows(6, longest=40)
    split = []
    for row in merged:
        ends = np.linspace(0, len(row.ids), 4).astype(int)[1:]
        begin = 0
        for end in ends:
            mine = np.where(np.arange(end) >= begin, row.mask[:end], 0).astype(np.float32)
            split.append(Row(row.ids[:end], mine, row.logprobs[:end], row.advantages[:end], row.versions[:end]))
            begin = end
    assert sum(row.trained for row in split) == sum(row.trained for row in merged)
    for build in (PADDED, PACKED):
        assert apart(gradient(tiny(), merged, build), gradient(tiny(), split, build)) < 1e-5


def test_a_model_that_mixes_packed_rows_is_found_out() -> None:
    def mixing() -> Any:
        model = tiny()
        blend = torch.nn.Conv1d(32, 32, 2, padding=1, groups=32)
        model.model.layers[0].register_forward_hook(lambda _, __, out: out + blend(out.mT)[..., :-1].mT)
        return model

    assert Learner(mixing(), LearnerOptions()).build.layout == "padded"
    assert Learner(tiny(), LearnerOptions()).build.layout == "packed"
    with pytest.raises(ModelError, match=r"does not keep packed rows apart.*learner\.layout=padded"):
        Learner(mixing(), LearnerOptions(), build=PACKED)
