"""Loads the model to train: a Hugging Face folder or id, with errors that say what is wrong with it."""

from __future__ import annotations

from typing import Any

from agentgym.errors import ModelError
from agentgym.hub import check_model


def load_model(path: str, dtype: str = "float32", revision: str = "") -> Any:
    """A transformers causal LM from a folder or id."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    check_model(path, revision)
    logging.disable_progress_bar()
    try:
        return AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype), revision=revision or None)
    except (OSError, ValueError, KeyError, RuntimeError) as e:
        raise ModelError(f"model.path = {path!r}: cannot load a causal language model: {_reason(e)}") from None


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def pick_device(name: str) -> str:
    """`auto` is a GPU where there is one; a device that is not there is refused."""
    import torch

    from agentgym.errors import ConfigError

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device = {name!r}: no CUDA device is visible; use --learner.device=cpu --engine.device=cpu")
    return name
