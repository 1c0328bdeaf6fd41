"""LoRA adapters (Hu et al., arXiv:2106.09685) by peft, injected into the model, which stays the class that it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from agentgym.errors import ConfigError

ADAPTER = "adapter"
"""Folder of the adapters beside the merged weights, in peft's own form."""


@dataclass(frozen=True, slots=True)
class Lora:
    """`rank` 0: none. `alpha` 0: twice the rank. `targets`: last parts of module names; none: all linear layers but
    the head."""

    rank: int = 0
    alpha: float = 0.0
    targets: tuple[str, ...] = ()

    @property
    def scale(self) -> float:
        """What B A is multiplied with."""
        return (self.alpha or 2.0 * self.rank) / self.rank


def add_adapters(model: Any, lora: Lora) -> None:
    """Freeze `model` and put adapters, fp32, beside the targets. They change nothing until they are trained.

    Raises `ConfigError` where peft is missing or a target is nowhere in the model.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise ConfigError("model.lora_rank needs peft: pip install 'agentgym-train[lora]'") from None
    names = sorted({_last(name) for name, _ in adapted_layers(model, lora.targets)})
    config = LoraConfig(r=lora.rank, lora_alpha=lora.scale * lora.rank, target_modules=names)
    inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def adapted_layers(model: Any, targets: Sequence[str]) -> list[tuple[str, nn.Linear]]:
    """The linear layers that adapters of these targets are put beside, by name: a run's, and those that a plan counts.

    Raises `ConfigError` where a target is nowhere in the model.
    """
    head = model.get_output_embeddings()
    linear = [(n, layer) for n, layer in model.named_modules() if isinstance(layer, nn.Linear) and layer is not head]
    names = {_last(name) for name, _ in linear}
    for target in targets:
        if target not in names:
            raise ConfigError(
                f"model.lora_targets: {target!r} matches nothing in {type(model).__name__}; there are: "
                + ", ".join(sorted(names))
            )
    if not names:
        raise ConfigError(f"model.lora_rank: {type(model).__name__} has no linear layers to put adapters beside")
    return [(name, layer) for name, layer in linear if not targets or _last(name) in targets]


def _last(name: str) -> str:
    return name.rpartition(".")[2]


@torch.no_grad()
def merged(tensors: Mapping[str, torch.Tensor], lora: Lora) -> dict[str, torch.Tensor]:
    """Whole tensors of a model with adapters -> those of one without, W + scale * B A, under its own names."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if ".lora_" in name:
            continue
        if name.endswith(".base_layer.weight"):
            place = name.removesuffix(".base_layer.weight")
            a, b = (tensors[f"{place}.lora_{which}.default.weight"] for which in "AB")
            tensor = (tensor.float() + lora.scale * (b.float() @ a.float())).to(tensor.dtype)
        found[name.replace(".base_layer.", ".")] = tensor
    return found


def adapters(tensors: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Those of named tensors that are adapters'."""
    return {name: tensor for name, tensor in tensors if ".lora_" in name}


def save_adapters(tensors: Mapping[str, torch.Tensor], lora: Lora, folder: Path) -> None:
    """Whole adapter tensors as `PeftModel.from_pretrained` reads them."""
    from peft import LoraConfig
    from safetensors.torch import save_file

    targets = sorted({name.partition(".lora_")[0].rpartition(".")[2] for name in tensors})
    config = LoraConfig(r=lora.rank, lora_alpha=lora.scale * lora.rank, target_modules=targets, task_type="CAUSAL_LM")
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    named = {f"base_model.model.{name.replace('.default', '')}": t.detach().cpu() for name, t in tensors.items()}
    save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})
