"""Sizes are counted, not estimated: against published ones, transformers' own, and peft's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from agentgym.config import Config, load_config
from agentgym.errors import ConfigError, ModelError
from agentgym.trainers.lora import Lora, add_adapters
from agentgym.trainers.plan.architectures import ARCHITECTURES, known
from agentgym.trainers.plan.model import Model, count, read_model

# safetensors' own count on the hub, the active ones by the model cards
PUBLISHED = {
    "Qwen/Qwen3-0.6B": (596_049_920, 0.6e9),
    "Qwen/Qwen3-1.7B": (1_720_574_976, 1.7e9),
    "Qwen/Qwen3-4B": (4_022_468_096, 4.0e9),
    "Qwen/Qwen3-8B": (8_190_735_360, 8.2e9),
    "Qwen/Qwen3-14B": (14_768_307_200, 14.8e9),
    "Qwen/Qwen3-32B": (32_762_123_264, 32.8e9),
    "Qwen/Qwen3-30B-A3B": (30_532_122_624, 3.3e9),
    "Qwen/Qwen3-235B-A22B": (235_093_634_560, 22e9),
    "Qwen/Qwen2.5-0.5B-Instruct": (494_032_768, 0.49e9),
    "Qwen/Qwen2.5-1.5B-Instruct": (1_543_714_304, 1.54e9),
    "Qwen/Qwen2.5-3B-Instruct": (3_085_938_688, 3.09e9),
    "Qwen/Qwen2.5-7B-Instruct": (7_615_616_512, 7.61e9),
    "Qwen/Qwen2.5-14B-Instruct": (14_770_033_664, 14.7e9),
    "Qwen/Qwen2.5-32B-Instruct": (32_763_876_352, 32.5e9),
    "Qwen/Qwen2.5-72B-Instruct": (72_706_203_648, 72.7e9),
    "meta-llama/Llama-3.1-8B-Instruct": (8_030_261_248, 8.03e9),
    "meta-llama/Llama-3.1-70B-Instruct": (70_553_706_496, 70.6e9),
}
SMALL = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 50,
}


def model_of(name: str, config: Config | None = None) -> Model:
    settings = dict(known(name) or {})
    return count(AutoConfig.for_model(settings.pop("model_type"), **settings), config or Config(), name, "table")


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_that_are_published(name: str) -> None:
    model = model_of(name)
    total, active = PUBLISHED[name]
    assert model.parameters == total
    assert model.active == pytest.approx(active, rel=0.03)


def test_every_entry_of_the_table_is_checked() -> None:
    assert set(ARCHITECTURES) - set(PUBLISHED) == {"Qwen/Qwen3-4B-Instruct-2507"}
    assert known("Qwen/Qwen2.5-7B") == known("Qwen/Qwen2.5-7B-Instruct")


def test_experts_that_a_token_does_not_meet_are_not_active() -> None:
    model = model_of("Qwen/Qwen3-30B-A3B")
    assert (model.routed, model.of_experts) == (8, 128)
    assert model.parameters - model.active == model.experts * 120 // 128
    assert model.experts == 48 * 128 * 3 * 2048 * 768


@pytest.mark.parametrize("tied", [True, False])
def test_the_counts_of_a_folder_are_those_of_its_model(tmp_path: Path, tied: bool) -> None:
    settings = AutoConfig.for_model("qwen3", num_hidden_layers=2, head_dim=16, tie_word_embeddings=tied, **SMALL)
    real = AutoModelForCausalLM.from_config(settings)
    real.save_pretrained(tmp_path)
    model = read_model(load_config(None, [f"model.path={tmp_path}"]))
    assert model.source == "folder"
    assert model.parameters == sum(p.numel() for p in real.parameters())
    assert model.embedding == 64 * 50 * (1 if tied else 2)
    assert model.block == sum(p.numel() for p in real.model.layers[0].parameters())
    assert {name: tuple(t.shape) for name, t in model.tensors.items()} == {
        name: tuple(p.shape) for name, p in real.named_parameters()
    }
    assert all(tensor.is_meta for tensor in model.tensors.values())


@pytest.mark.parametrize("targets", [[], ["q_proj", "v_proj"]])
def test_adapters_have_as_many_numbers_as_pefts(targets: list[str]) -> None:
    peft = pytest.importorskip("peft")
    config = Config()
    config.model.lora_rank, config.model.lora_targets = 4, targets
    settings = AutoConfig.for_model("qwen3", num_hidden_layers=2, head_dim=16, **SMALL)
    planned = count(settings, config, "small", "folder")
    adapted = peft.get_peft_model(
        AutoModelForCausalLM.from_config(settings), peft.LoraConfig(r=4, target_modules=targets or "all-linear")
    )
    assert planned.adapter == planned.trained == sum(p.numel() for p in adapted.parameters() if p.requires_grad)


@pytest.mark.parametrize("targets", [["qproj"], ["q_proj", "qproj"], ["self_attn.q_proj"]])
def test_targets_are_refused_as_the_run_refuses_them(targets: list[str]) -> None:
    pytest.importorskip("peft")
    config = Config()
    config.model.lora_rank, config.model.lora_targets = 4, targets
    settings = AutoConfig.for_model("qwen3", num_hidden_layers=2, head_dim=16, **SMALL)
    with pytest.raises(ConfigError, match=r"lora_targets: '.*' matches nothing.*q_proj") as planned:
        count(settings, config, "small", "folder")
    with pytest.raises(ConfigError) as run:
        add_adapters(AutoModelForCausalLM.from_config(settings), Lora(4, targets=tuple(targets)))
    assert str(planned.value) == str(run.value)


def test_without_the_hub_the_table_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", _unreachable)
    model = read_model(load_config(None, ["model.path=Qwen/Qwen3-4B"]))
    assert (model.source, model.layers, model.parameters) == ("table", 36, PUBLISHED["Qwen/Qwen3-4B"][0])
    with pytest.raises(ModelError, match=r"'Qwen/Qwen3-4b-it'.*cannot be reached.*mean 'Qwen/Qwen3-4B'.*config\.json"):
        read_model(load_config(None, ["model.path=Qwen/Qwen3-4b-it"]))


def _unreachable(*_: object, **__: object) -> None:
    raise OSError("no route")


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no folder with a config\.json"):
        read_model(load_config(None, [f"model.path={tmp_path}"]))
    with pytest.raises(ModelError, match=r"no folder with a config\.json"):
        read_model(load_config(None, ["model.path=./nowhere"]))


def test_counting_makes_no_weights() -> None:
    before = torch.get_default_device()
    model = model_of("Qwen/Qwen3-235B-A22B")
    assert sum(t.nbytes for t in model.tensors.values()) > 400e9
    assert torch.get_default_device() == before
