"""Hidden states -> logits, as the model's own forward would: some families scale or cap their logits."""

from __future__ import annotations

from typing import Any

import torch


def head_logits(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """hidden [..., H] of a transformers causal LM -> logits [..., V]."""
    return adjusted(model, model.get_output_embeddings()(hidden))


def adjusted(model: Any, logits: torch.Tensor) -> torch.Tensor:
    """What comes out of the head's layer -> logits: an operation on each number, or none."""
    config = model.config.get_text_config()
    if (scaling := getattr(config, "logits_scaling", None)) is not None:  # Granite
        logits = logits / scaling
    if (scale := getattr(config, "logit_scale", None)) is not None:  # Cohere
        logits = logits * scale
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:  # Gemma
        logits = torch.tanh(logits / cap) * cap
    return logits
