"""How long a sequence may be and how many fit: what a config leaves open, read off the model and the memory there is.

The cache of one sequence takes 2 x layers x key-value heads x head size numbers a token: 24 KiB for Qwen2.5-0.5B in
fp32, 224 KiB for Qwen3-0.6B, so 48 and 448 MiB at 2,048 tokens.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from agentgym.errors import ModelError

LONGEST = 4096
"""Tokens of a sequence where nobody says: agents rarely need more, and the cache grows with it."""
SHARE = 0.5
"""Of the memory that is free, what the cache may take: a learner may live beside it."""


def context_of(config: Any, asked: int = 0) -> int:
    """`engine.max_context`: what was asked for, else the positions of the model (by its transformers config), at most
    4096."""
    return asked or min(positions(config) or LONGEST, LONGEST)


def positions(config: Any) -> int | None:
    """Up to which position a model may be run; None where its config does not say."""
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    limit = getattr(text, "max_position_embeddings", None)
    if rope.get("rope_type") in ("dynamic", "longrope"):
        # beyond this they change every position's rotation with the longest sequence of the batch
        limit = rope.get("original_max_position_embeddings", limit)
    return None if limit is None else int(limit)


def token_bytes(model: Any) -> int:
    """Bytes of keys and values that one token takes in the cache of all layers."""
    return cache_numbers(model.config) * int(model.dtype.itemsize)


def cache_numbers(config: Any, ways: int = 1) -> int:
    """Numbers that one token takes in the cache of all layers, on one of `ways` cards that share the heads.

    A key-value head is not divided: where there are more cards than heads, several hold the same one.
    """
    text = config.get_text_config()
    heads = getattr(text, "num_attention_heads", None) or 1
    kv_heads = getattr(text, "num_key_value_heads", None) or heads
    head_size = getattr(text, "head_dim", None) or text.hidden_size // heads
    return int(2 * text.num_hidden_layers * -(-kv_heads // ways) * head_size)


def slots_of(model: Any, asked: int, columns: int, device: torch.device) -> int:
    """As many of the `asked` slots of `columns` tokens as memory has room for; raises `ModelError` where none has."""
    free, each = free_bytes(device), token_bytes(model) * columns
    if each > free:
        raise ModelError(
            f"engine.max_context = {columns}: the cache of one such sequence takes {each / 2**20:,.0f} MiB, but only "
            f"{free / 2**20:,.0f} MiB of memory are free; lower it"
        )
    return slots_within(free, each, asked)


def slots_within(free: int, each: int, asked: int) -> int:
    """As many of the `asked` slots of `each` bytes as may be taken of `free` bytes, one at least."""
    return max(1, min(asked, int(SHARE * free) // each))


def free_bytes(device: torch.device) -> int:
    """Free memory of a device; on a CPU what the system, or the container's limit, still gives."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = [_available(), _container()]
    return min((free for free in found if free is not None), default=1 << 62)


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # a system that does not say
        return None


def _container() -> int | None:
    """What is left of a container's limit (cgroup 2); None without one."""
    group = Path("/sys/fs/cgroup")
    try:
        left = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return left + int(stat.get("inactive_file", 0))  # files it read, which give way
    except (OSError, ValueError):  # no such file, or "max"
        return None
