"""What is done to a model before it learns: no noise, and no packed rows where it would mix them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM

from agentgym.errors import ModelError
from agentgym.trainers.learner import Learner, LearnerOptions
from agentgym.trainers.policy import Build, prepare, skeleton
from tests.trainers.rows import rows, tiny


def gpt2() -> Any:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=64, n_embd=32, n_layer=2, n_head=2))


def opt(**more: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return OPTForCausalLM(
        OPTConfig(vocab_size=50, max_position_embeddings=64, word_embed_proj_dim=32, **{**sizes, **more})
    )


NOISY: dict[str, Callable[[], Any]] = {
    "gpt2": gpt2,
    "opt": lambda: opt(dropout=0.1, attention_dropout=0.1, layerdrop=0.5),
    "qwen3": lambda: tiny(attention_dropout=0.1),
}


@pytest.mark.parametrize("name", NOISY)
def test_two_passes_of_the_same_tokens_are_the_same(name: str) -> None:
    """Of a policy that learns and of its reference, with recomputed blocks too."""
    given = rows(6)
    for recompute in (False, True):
        learner = Learner(NOISY[name](), LearnerOptions(), build=Build(layout="padded", recompute=recompute))
        assert learner.policy.training
        learner.hold_here()
        one, other = (np.concatenate(learner.logprobs(given)) for _ in range(2))
        np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(np.concatenate(learner.logprobs(given, reference=True)), one, atol=1e-6)


@pytest.mark.parametrize("name", NOISY)
def test_ranks_make_theirs_without_noise(name: str) -> None:
    model = NOISY[name]()
    build = prepare(model, Build(layout="padded"))
    other = skeleton(type(model), model.config, build)
    for module in (*model.modules(), *other.modules()):
        rates = {n: v for n, v in vars(module).items() if "drop" in n and isinstance(v, float)}
        assert not any(rates.values()), rates
        assert getattr(module, "p", 0.0) == 0.0


def test_packed_rows_by_a_named_attention_are_tried() -> None:
    build = Build(layout="packed", attention="eager")
    with pytest.raises(ModelError, match=r"OPTForCausalLM does not keep packed rows apart"):
        prepare(opt(dropout=0.0), build)
    given = rows(6)
    packed, padded = (
        np.concatenate(Learner(tiny(), LearnerOptions(), build=how).logprobs(given))
        for how in (build, Build(layout="padded"))
    )
    np.testing.assert_allclose(packed, padded, atol=1e-5)
    assert prepare(tiny(), build) == build


def test_an_attention_that_does_not_run_here_is_stood_in_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As flash attention, while the model is on a CPU."""
    from transformers import AttentionInterface

    def broken(*args: Any, **more: Any) -> Any:
        raise RuntimeError("FlashAttention only supports CUDA")

    AttentionInterface.register("broken", broken)
    build = Build(layout="packed", attention="broken")
    model = tiny()
    assert prepare(model, build) == build
    assert model.config._attn_implementation == "broken"
    with pytest.raises(ModelError, match="does not keep packed rows apart"):
        prepare(opt(dropout=0.0), build)
