"""A tiny model, and rows to train it on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from agentgym.trainers.batch import Row

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "tie_word_embeddings": True,
}


def tiny(seed: int = 0, **changed: Any) -> Any:
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(Qwen3Config(**{**SIZES, **changed}))


def tiny_moe(**changed: Any) -> Any:
    torch.manual_seed(0)
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**{**SIZES, **experts, **changed}))


def rows(count: int, seed: int = 0, longest: int = 30) -> list[Row]:
    """Of 4 to `longest` tokens, about half of them trained."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        n = int(rng.integers(4, longest))
        mask = (rng.random(n) < 0.5).astype(np.float32)
        mask[0] = 0
        mask[-1] = 1
        made.append(
            Row(
                rng.integers(0, 50, n).astype(np.int32),
                mask,
                (rng.random(n) - 4).astype(np.float32),
                rng.normal(size=n).astype(np.float32) * mask,
                np.zeros(n, np.int32),
            )
        )
    return made
