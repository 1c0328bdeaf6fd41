"""LoRA: only adapters are trained, engines and folders get merged weights, and a run goes on from what it saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from agentgym.errors import ConfigError
from agentgym.trainers.learner import Learner, LearnerOptions
from agentgym.trainers.lora import ADAPTER, Lora
from agentgym.trainers.losses.grpo import grpo_loss
from agentgym.trainers.policy import Build
from tests.trainers.rows import rows, tiny, tiny_moe

pytest.importorskip("peft", reason="needs peft (extra lora)")

OPTIONS = LearnerOptions(lr=1e-2)


def learner(lora: Lora, model: Any = None) -> Learner:
    return Learner(model or tiny(), OPTIONS, build=Build(lora=lora))


def test_published_weights_are_those_of_the_adapted_model() -> None:
    mine = learner(Lora(4, targets=("q_proj", "down_proj")))
    before = {name: tensor.clone() for name, tensor in mine.weights().items()}
    assert before.keys() == dict(tiny().named_parameters()).keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny().named_parameters())
    for seed in range(3):
        mine.train(rows(8, seed), grpo_loss, seed=seed)
    weights = mine.weights()
    changed = {name for name in weights if not torch.equal(weights[name], before[name])}
    assert changed == {name for name in weights if "q_proj" in name or "down_proj" in name}

    plain = tiny()
    plain.load_state_dict(weights, strict=False)
    merged = Learner(plain, OPTIONS)
    for ours, its in zip(mine.logprobs(rows(4)), merged.logprobs(rows(4)), strict=True):
        assert ours == pytest.approx(its, abs=1e-5)


def test_the_scale_is_alpha_by_rank() -> None:
    assert Lora(8).scale == 2.0
    assert Lora(8, alpha=4.0).scale == 0.5
    torch.manual_seed(1)
    one, other = learner(Lora(4)), learner(Lora(4, alpha=2.0))
    other.model.load_state_dict(one.model.state_dict())
    for mine in (one, other):
        for name, parameter in mine.model.named_parameters():
            if "lora_B" in name:
                parameter.data.fill_(0.01)
    name = "model.layers.0.self_attn.q_proj.weight"
    base = dict(tiny().named_parameters())[name]
    torch.testing.assert_close(one.weights()[name] - base, 4 * (other.weights()[name] - base), atol=1e-7, rtol=1e-4)


def test_a_folder_holds_the_merged_model_and_adapters_that_peft_reads(tmp_path: Path) -> None:
    from peft import PeftModel

    mine = learner(Lora(4))
    mine.train(rows(8), grpo_loss, seed=0)
    mine.save_pretrained(tmp_path)
    mine.save_state(tmp_path)
    ids = torch.tensor([[1, 2, 3, 4]])
    merged = type(mine.model).from_pretrained(tmp_path)
    adapted = PeftModel.from_pretrained(tiny(), tmp_path / ADAPTER)
    torch.testing.assert_close(merged(ids).logits, adapted(ids).logits, atol=1e-5, rtol=1e-5)

    again = learner(Lora(4))
    again.load_state(tmp_path)
    for one in (mine, again):
        one.train(rows(8, 1), grpo_loss, seed=1)
    assert all(torch.equal(tensor, again.weights()[name]) for name, tensor in mine.weights().items())


def test_of_a_mixture_of_experts_what_is_linear_is_adapted() -> None:
    mine = learner(Lora(4), tiny_moe())
    assert mine.train(rows(8), grpo_loss, seed=0)["grad_norm"] > 0


def test_targets_that_match_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"lora_targets: 'query' matches nothing .* there are: .*k_proj.*q_proj"):
        learner(Lora(4, targets=("q_proj", "query")))
