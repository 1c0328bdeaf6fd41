"""Logprobs and gradients are the same in chunks of logits as at once, whatever the head: fp32, 1e-5."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from agentgym.trainers import logprobs as logprobs_module
from agentgym.trainers.batch import Row
from agentgym.trainers.learner import Learner, LearnerOptions
from agentgym.trainers.logprobs import chosen_logprobs
from agentgym.trainers.lora import Lora
from agentgym.trainers.losses.grpo import grpo_loss
from agentgym.trainers.policy import Build
from agentgym.trainers.ranks.learner import make_ranked
from tests.trainers.rows import SIZES, rows, tiny

FEW = 50 * 7
"""Logits of 7 tokens."""


def of(model: Any, config: Any, **more: Any) -> Any:
    torch.manual_seed(0)
    return model(config(**{**SIZES, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, **more}))


class Wrapped(nn.Linear):
    """A head that is more than a product."""

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(given, self.weight) * 1.5


def wrapped() -> Any:
    model = tiny(tie_word_embeddings=False)
    model.lm_head.__class__ = Wrapped
    return model


HEADS: dict[str, Callable[[], Any]] = {
    "tied": tiny,
    "untied": lambda: tiny(tie_word_embeddings=False),
    "biased": lambda: of(PhiForCausalLM, PhiConfig, tie_word_embeddings=False),
    "capped": lambda: of(Gemma2ForCausalLM, Gemma2Config, query_pre_attn_scalar=8, final_logit_softcapping=0.5),
    "scaled": lambda: of(CohereForCausalLM, CohereConfig, logit_scale=0.0625),
    "divided": lambda: of(GraniteForCausalLM, GraniteConfig, logits_scaling=4.0),
    "of its own": wrapped,
}


def learned(model: Any, given: list[Row], monkeypatch: pytest.MonkeyPatch, chunk: int, build: Build) -> Any:
    """The gradient after two micro-batches, the logprobs and the metrics."""
    monkeypatch.setattr(logprobs_module, "CHUNK_ELEMENTS", chunk)
    options = LearnerOptions(lr=1e-9, tokens_per_microbatch=120, grad_clip=1e9, temperature=0.7, entropy=0.1)
    learner = Learner(model, options, build=build)
    seen: list[torch.Tensor] = []
    trained = [p for p in model.parameters() if p.requires_grad]
    learner.optimizers[0].step = lambda: seen.append(  # type: ignore[method-assign]
        torch.cat([p.grad.flatten() for p in trained if p.grad is not None])
    )
    scored = np.concatenate(learner.logprobs(given))
    metrics = learner.train(given, grpo_loss, seed=0)
    return seen[0], scored, metrics


@pytest.mark.parametrize("name", HEADS)
def test_in_chunks_or_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = rows(12)
    whole, scored, metrics = learned(HEADS[name](), given, monkeypatch, 1 << 24, Build(layout="padded"))
    chunked, again, theirs = learned(HEADS[name](), given, monkeypatch, FEW, Build(layout="padded"))
    assert float((whole - chunked).norm() / whole.norm()) < 1e-5
    np.testing.assert_allclose(scored, again, atol=1e-5)
    assert theirs == pytest.approx(metrics, rel=1e-5)


@pytest.mark.parametrize("targets", [(), ("q_proj", "down_proj")], ids=["all", "some"])
def test_adapters_beside_a_frozen_head(targets: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft", reason="needs peft (extra lora)")
    given, build = rows(12), Build(layout="padded", lora=Lora(4, targets=targets))
    whole, _, _ = learned(_stirred(tiny(), build), given, monkeypatch, 1 << 24, build)
    model = _stirred(tiny(), build)
    chunked, _, _ = learned(model, given, monkeypatch, FEW, build)
    assert float(whole.norm()) > 0
    assert float((whole - chunked).norm() / whole.norm()) < 1e-5
    assert model.get_output_embeddings().weight.grad is None


def _stirred(model: Any, build: Build) -> Any:
    """The same draws for the adapters."""
    torch.manual_seed(1)
    return model


@pytest.mark.parametrize("bias", [False, True])
def test_the_gradient_is_added_to_what_is_there(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place, so that no second matrix is needed; but where a hook waits for it, autograd brings it."""
    monkeypatch.setattr(logprobs_module, "CHUNK_ELEMENTS", FEW)
    model = tiny(tie_word_embeddings=False)
    head = model.lm_head
    if bias:
        head.bias = nn.Parameter(torch.randn(50))
    hidden, targets = torch.randn(30, 32, requires_grad=True), torch.randint(0, 50, (30,))

    def backward() -> None:
        (chosen_logprobs(model, hidden, targets, 1.0)[0] ** 2).sum().backward()

    backward()
    one, of_bias = head.weight.grad.clone(), head.bias.grad.clone() if bias else None
    place = head.weight.grad.data_ptr()
    backward()
    assert head.weight.grad.data_ptr() == place
    torch.testing.assert_close(head.weight.grad, 2 * one)
    if of_bias is not None:
        torch.testing.assert_close(head.bias.grad, 2 * of_bias)
    heard: list[torch.Tensor] = []
    head.weight.register_hook(lambda gradient: heard.append(gradient.clone()))
    backward()
    torch.testing.assert_close(heard[0], one)
    torch.testing.assert_close(head.weight.grad, 3 * one)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_sharded_head_in_chunks(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """FSDP casts the weights, and gathers them before the head is called."""
    given, norms = rows(12), []
    for chunk in (1 << 24, FEW):
        monkeypatch.setattr(logprobs_module, "CHUNK_ELEMENTS", chunk)
        options = LearnerOptions(lr=1e-9, tokens_per_microbatch=120, grad_clip=1e9)
        learner = make_ranked(tiny(), options, ranks=1, build=Build(dtype=dtype))
        try:
            norms.append(learner.train(given, grpo_loss, seed=0)["grad_norm"])
        finally:
            learner.close()
    assert norms[1] == pytest.approx(norms[0], rel=1e-5 if dtype == "float32" else 1e-2)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("tensor_parallel", [1, 2], ids=["sharded", "cut"])
def test_two_ranks_in_chunks(tensor_parallel: int) -> None:
    """A vocabulary of which a rank's tokens make several chunks, as they are cut."""
    given = [_of_vocabulary(row) for row in rows(80, longest=60)]
    assert min(sum(row.trained for row in given[:40]), 700) * WIDE > 1 << 24
    options = LearnerOptions(lr=1e-3, grad_clip=1e9)
    one = Learner(tiny(vocab_size=WIDE, num_key_value_heads=2), options)
    two = make_ranked(tiny(vocab_size=WIDE, num_key_value_heads=2), options, ranks=2, tensor_parallel=tensor_parallel)
    try:
        for step in range(2):
            ours, theirs = (learner.train(given, grpo_loss, seed=step) for learner in (one, two))
            assert theirs["grad_norm"] == pytest.approx(ours["grad_norm"], rel=1e-5)
            assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-4, abs=1e-6)
    finally:
        two.close()


WIDE = 40_000


def _of_vocabulary(row: Row) -> Row:
    return Row(row.ids * 791, row.mask, row.logprobs - 7, row.advantages, row.versions)
