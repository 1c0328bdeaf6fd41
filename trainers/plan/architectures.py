"""The published configurations of a few models, for plans where the hub cannot be reached.

Of each only what decides its size and cost: the numbers of its config.json, as transformers' config takes them.
"""

from __future__ import annotations

from typing import Any

QWEN3 = {"model_type": "qwen3", "vocab_size": 151936, "head_dim": 128, "max_position_embeddings": 40960}
QWEN3_MOE = {**QWEN3, "model_type": "qwen3_moe", "norm_topk_prob": True}
QWEN25 = {"model_type": "qwen2", "vocab_size": 151936, "max_position_embeddings": 32768}
LLAMA = {"model_type": "llama", "vocab_size": 128256, "max_position_embeddings": 131072}


def _dense(
    family: dict[str, Any], hidden: int, layers: int, heads: int, kv_heads: int, inner: int, *, tied: bool, **more: Any
) -> dict[str, Any]:
    return {
        **family,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": inner,
        "tie_word_embeddings": tied,
        **more,
    }


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "Qwen/Qwen3-0.6B": _dense(QWEN3, 1024, 28, 16, 8, 3072, tied=True),
    "Qwen/Qwen3-1.7B": _dense(QWEN3, 2048, 28, 16, 8, 6144, tied=True),
    "Qwen/Qwen3-4B": _dense(QWEN3, 2560, 36, 32, 8, 9728, tied=True),
    "Qwen/Qwen3-4B-Instruct-2507": _dense(QWEN3, 2560, 36, 32, 8, 9728, tied=True, max_position_embeddings=262144),
    "Qwen/Qwen3-8B": _dense(QWEN3, 4096, 36, 32, 8, 12288, tied=False),
    "Qwen/Qwen3-14B": _dense(QWEN3, 5120, 40, 40, 8, 17408, tied=False),
    "Qwen/Qwen3-32B": _dense(QWEN3, 5120, 64, 64, 8, 25600, tied=False),
    "Qwen/Qwen3-30B-A3B": _dense(
        QWEN3_MOE, 2048, 48, 32, 4, 6144, tied=False, num_experts=128, num_experts_per_tok=8, moe_intermediate_size=768
    ),
    "Qwen/Qwen3-235B-A22B": _dense(
        QWEN3_MOE,
        4096,
        94,
        64,
        4,
        12288,
        tied=False,
        num_experts=128,
        num_experts_per_tok=8,
        moe_intermediate_size=1536,
    ),
    "Qwen/Qwen2.5-0.5B-Instruct": _dense(QWEN25, 896, 24, 14, 2, 4864, tied=True),
    "Qwen/Qwen2.5-1.5B-Instruct": _dense(QWEN25, 1536, 28, 12, 2, 8960, tied=True),
    "Qwen/Qwen2.5-3B-Instruct": _dense(QWEN25, 2048, 36, 16, 2, 11008, tied=True),
    "Qwen/Qwen2.5-7B-Instruct": _dense(QWEN25, 3584, 28, 28, 4, 18944, tied=False, vocab_size=152064),
    "Qwen/Qwen2.5-14B-Instruct": _dense(QWEN25, 5120, 48, 40, 8, 13824, tied=False, vocab_size=152064),
    "Qwen/Qwen2.5-32B-Instruct": _dense(QWEN25, 5120, 64, 40, 8, 27648, tied=False, vocab_size=152064),
    "Qwen/Qwen2.5-72B-Instruct": _dense(QWEN25, 8192, 80, 64, 8, 29568, tied=False, vocab_size=152064),
    "meta-llama/Llama-3.1-8B-Instruct": _dense(LLAMA, 4096, 32, 32, 8, 14336, tied=False),
    "meta-llama/Llama-3.1-70B-Instruct": _dense(LLAMA, 8192, 80, 64, 8, 28672, tied=False),
}
"""By Hugging Face id. Base and instruct models of one size share their architecture."""


def known(path: str) -> dict[str, Any] | None:
    """The configuration of an id, the base model of one too (`Qwen/Qwen2.5-7B`); None where it is not here."""
    return ARCHITECTURES.get(path) or ARCHITECTURES.get(f"{path}-Instruct")
