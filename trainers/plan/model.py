"""What a model is made of, counted on the meta device: no weights are read and none are made."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from agentgym.config import Config
from agentgym.errors import ModelError
from agentgym.hub import hub_problem
from agentgym.trainers.lora import adapted_layers
from agentgym.trainers.plan.architectures import ARCHITECTURES, known

Source = Literal["folder", "hub", "cache", "table", "tiny"]
TINY_VOCABULARY = 400
"""About what the tokenizer of a tiny model has: it is built when the run begins, of the env's words."""


@dataclass(frozen=True, slots=True)
class Model:
    """Sizes are in numbers (parameters), not bytes."""

    name: str
    source: Source
    architecture: str
    parameters: int
    active: int
    """Of them, those that a token meets: all but the experts that it is not sent to."""
    experts: int
    """Numbers of all experts' weights."""
    embedding: int
    """Numbers of the embedding, and of the head where it is not the same."""
    block: int
    """Numbers of the largest block."""
    matrices: int
    """Numbers of the blocks' matrices, which Muon takes."""
    adapter: int
    """Numbers of the LoRA adapters; 0: none."""
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    inner: int
    """Width of the MLP, or of one expert."""
    routed: int
    """Experts that a token is sent to; 0: no MoE."""
    of_experts: int
    qk_norm: bool
    vocabulary: int
    config: Any = field(repr=False)
    tensors: Mapping[str, Any] = field(repr=False)
    """Its parameters by name, on the meta device."""

    @property
    def trained(self) -> int:
        return self.adapter or self.parameters

    @property
    def head(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def worked(self) -> int:
        """Numbers that a token is multiplied with, the head's left out."""
        return self.active - self.embedding


def read_model(config: Config) -> Model:
    """Of `model.path`, else the tiny model of the config. Raises `ModelError` where nothing is known of it, and
    `ConfigError` for LoRA targets that match nothing."""
    path = config.model.path
    settings, source = _settings(config) if path else (_tiny(config), "tiny")
    return count(settings, config, path or "tiny model", source)


def skeleton_of(settings: Any, dtype: str = "float32") -> Any:
    """The causal LM of a transformers config, on the meta device."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(settings, dtype=getattr(torch, dtype))


def count(settings: Any, config: Config, name: str, source: Source) -> Model:
    """The facts of a transformers config."""
    try:
        model = skeleton_of(settings, config.model.dtype)
    except (ValueError, KeyError) as e:
        raise ModelError(f"model.path = {name!r}: no causal language model of transformers: {_line(e)}") from None
    tensors = dict(model.named_parameters())
    sizes = {key: tensor.numel() for key, tensor in tensors.items()}
    text = settings.get_text_config()
    experts = sum(size for key, size in sizes.items() if ".experts." in key)
    of_experts = _first(text, "num_experts", "num_local_experts", "n_routed_experts") if experts else 0
    routed = _first(text, "num_experts_per_tok") if experts else 0
    heads = text.num_attention_heads
    ends = {id(layer.weight) for layer in (model.get_input_embeddings(), model.get_output_embeddings())}
    outside = {key for key, tensor in tensors.items() if id(tensor) in ends}
    return Model(
        name=name,
        source=source,
        architecture=type(model).__name__,
        parameters=sum(sizes.values()),
        active=sum(sizes.values()) - (experts * (of_experts - routed) // of_experts if of_experts else 0),
        experts=experts,
        embedding=sum(sizes[key] for key in outside),
        block=max(_blocks(sizes).values(), default=0),
        matrices=sum(
            tensors[key].numel()
            for key in sizes
            if key not in outside and tensors[key].ndim == 2 and ".experts." not in key
        ),
        adapter=_adapter(model, config),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        heads=heads,
        kv_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_size=getattr(text, "head_dim", None) or text.hidden_size // heads,
        inner=(_first(text, "moe_intermediate_size") if experts else 0) or text.intermediate_size,
        routed=routed,
        of_experts=of_experts,
        qk_norm=any(key.endswith("q_norm.weight") for key in sizes),
        vocabulary=text.vocab_size,
        config=settings,
        tensors=tensors,
    )


def _settings(config: Config) -> tuple[Any, Source]:
    """The transformers config of a folder, else of the cache, the hub, or the table of published ones."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    path, revision = config.model.path, config.model.revision
    if Path(path).exists() or path.startswith((".", "/", "~")) or path.count("/") > 1:
        if not (Path(path) / "config.json").is_file():
            raise ModelError(f"model.path = {path!r}: there is no folder with a config.json")
        return _load(path, revision), "folder"
    if isinstance(try_to_load_from_cache(path, "config.json", revision=revision or None), str):
        return _load(path, revision, local_files_only=True), "cache"
    try:
        HfApi().model_info(path, revision=revision or None, timeout=10)
    except Exception as e:
        if (problem := hub_problem(e)) is None:
            raise
        if (settings := known(path)) is None:
            raise ModelError(_unknown(path, problem)) from None
        return _published(settings), "table"
    return _load(path, revision), "hub"


def _load(path: str, revision: str, **options: Any) -> Any:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(path, revision=revision or None, **options)
    except (OSError, ValueError, KeyError, TypeError, StrictDataclassError) as e:
        raise ModelError(f"model.path = {path!r}: its config.json cannot be used: {_line(e)}") from None


def _published(settings: Mapping[str, Any]) -> Any:
    from transformers import AutoConfig

    options = dict(settings)
    return AutoConfig.for_model(options.pop("model_type"), **options)


def _unknown(path: str, problem: str) -> str:
    names = {name.lower(): name for name in ARCHITECTURES}
    close = difflib.get_close_matches(path.lower(), names, n=1, cutoff=0.5)
    nearest = f"; did you mean {names[close[0]]!r}?" if close else ""
    return (
        f"model.path = {path!r}: nothing is known of it here, and {problem}{nearest}. A plan needs only its "
        "config.json: give a folder that has it"
    )


def _tiny(config: Config) -> Any:
    import torch

    from agentgym.trainers.tiny_model import build_model

    with torch.device("meta"):
        context = config.engine.max_context
        return build_model(TINY_VOCABULARY, config.model, max_context=context, seed=config.run.seed).config


def _adapter(model: Any, config: Config) -> int:
    """Numbers of the adapters: rank times inputs and outputs of every layer that gets one."""
    if not (rank := config.model.lora_rank):
        return 0
    layers = adapted_layers(model, config.model.lora_targets)
    return rank * sum(layer.in_features + layer.out_features for _, layer in layers)


def _blocks(sizes: Mapping[str, int]) -> dict[str, int]:
    """Numbers of each block of the stack, by its index."""
    blocks: dict[str, int] = {}
    for name, size in sizes.items():
        index = next((part for part in name.split(".") if part.isdigit()), None)
        if index is not None:
            blocks[index] = blocks.get(index, 0) + size
    return blocks


def _first(config: Any, *names: str) -> int:
    return next((int(value) for name in names if (value := getattr(config, name, None))), 0)


def _line(error: Exception) -> str:
    cause = error.__cause__ or error  # of what was wrong, not of where it was found
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]
