"""Attention over the slots, as a function that transformers' models call by name.

Queries of the heads that share a key-value head are folded into one longer query, so keys and values are never
repeated. Masks come from the plan (by each layer's own `sliding_window`), not from the model.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from agentgym.engines.plan import Bucket, StepPlan

NAME = "agentgym_slots"


def slots_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    slot_plan: StepPlan,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """query [1, heads, tokens, dim] against the buffers [slots, kv_heads, columns, dim]; [1, tokens, heads, dim]."""
    packed = query[0].transpose(0, 1)  # [tokens, heads, dim]
    scale = packed.shape[-1] ** -0.5 if scaling is None else scaling
    extra = (scale, softcap, s_aux)
    parts = [_bucket(packed, key, value, bucket, sliding_window, extra) for bucket in slot_plan.buckets]
    if slot_plan.decode:
        parts.insert(0, _decode(packed, key, value, slot_plan, sliding_window, extra))
    out = parts[0] if len(parts) == 1 else torch.cat(parts)
    return out.unsqueeze(0), None


def _decode(
    packed: torch.Tensor, key: torch.Tensor, value: torch.Tensor, plan: StepPlan, window: int | None, extra: Any
) -> torch.Tensor:
    rows, heads, dim = plan.decode, packed.shape[1], packed.shape[2]
    query = packed[:rows].view(rows, key.shape[1], heads // key.shape[1], dim)
    if plan.decode_slots is None:
        key, value = key[:rows, :, : plan.decode_keys], value[:rows, :, : plan.decode_keys]
    else:
        key = key[:, :, : plan.decode_keys].index_select(0, plan.decode_slots)
        value = value[:, :, : plan.decode_keys].index_select(0, plan.decode_slots)
    mask = plan.mask(window, query.dtype)
    if query.device.type == "cpu" and extra[1:] == (None, None):
        out = _attend_small(query, key, value, mask, extra[0])
    else:
        out = _attend(query, key, value, mask, 1, extra)
    return out.reshape(rows, heads, out.shape[-1])


def _bucket(
    packed: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bucket: Bucket, window: int | None, extra: Any
) -> torch.Tensor:
    heads, dim, kv_heads = packed.shape[1], packed.shape[2], key.shape[1]
    rows, length = bucket.slots.shape[0], bucket.queries
    if bucket.gather is None:
        query = packed[bucket.first : bucket.first + bucket.tokens]
    else:
        query = packed.index_select(0, bucket.gather)
    query = query.view(rows, length, kv_heads, heads // kv_heads, dim).permute(0, 2, 3, 1, 4)
    query = query.reshape(rows, kv_heads, -1, dim)  # [rows, kv_heads, group * length, dim]
    key = key[:, :, : bucket.keys].index_select(0, bucket.slots)
    value = value[:, :, : bucket.keys].index_select(0, bucket.slots)
    mask = bucket.mask(window, query.dtype)
    if heads != kv_heads:
        mask = mask.repeat(1, 1, heads // kv_heads, 1)
    out = _attend(query, key, value, mask, length, extra)
    out = out.view(rows, kv_heads, -1, length, out.shape[-1]).permute(0, 3, 1, 2, 4)
    out = out.reshape(rows * length, heads, -1)
    return out if bucket.scatter is None else out.index_select(0, bucket.scatter)


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, length: int, extra: Any
) -> torch.Tensor:
    """Plain attention of [rows, kv_heads, group * length, dim]; sinks and soft caps take the long way."""
    scale, softcap, sinks = extra
    if softcap is None and sinks is None:
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    scores = torch.matmul(query, key.transpose(2, 3)) * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores + mask
    if sinks is not None:
        rows, kv_heads, folded, _ = scores.shape
        sink = sinks.view(1, kv_heads, -1, 1, 1).expand(rows, kv_heads, folded // length, length, 1)
        scores = torch.cat([scores, sink.reshape(rows, kv_heads, folded, 1).to(scores.dtype)], dim=-1)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return torch.matmul(weights[..., : key.shape[2]], value)


def _attend_small(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scale: float
) -> torch.Tensor:
    """The same for few queries a row, as two batched products: on a CPU half the time of the library's kernel."""
    query, key, value = query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1)
    if mask.shape[0] != query.shape[0]:
        mask = mask.expand(-1, query.shape[0] // mask.shape[0], -1, -1).flatten(0, 1)
    else:
        mask = mask[:, 0]
    scores = torch.baddbmm(mask, query, key.transpose(1, 2), alpha=scale)
    return torch.bmm(torch.softmax(scores, dim=-1), value)


def register() -> str:
    """Make the function known to transformers; returns the name to set as a model's attention implementation."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, slots_attention)
    return NAME
