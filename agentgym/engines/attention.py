"""Attention over the slots, as a function that transformers' models call by name.

Queries of the heads that share a key-value head are folded into one longer query, so keys and values are never
repeated. Masks come from the plan (by each layer's own `sliding_window`), not from the model. Sizes are read off
tensors and no branch depends on one, so that a step can be traced (`traced.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from agentgym.engines.plan import Part, StepPlan

NAME = "agentgym_slots"


@dataclass(frozen=True, slots=True)
class _Layer:
    """What a layer's attention is, apart from its tensors."""

    group: int  # query heads per key-value head
    scale: float
    window: int | None
    softcap: float | None
    sinks: torch.Tensor | None

    @property
    def plain(self) -> bool:
        return self.softcap is None and self.sinks is None


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
    group = int(getattr(module, "num_key_value_groups", 1))
    scale = float(query.shape[-1]) ** -0.5 if scaling is None else scaling
    layer = _Layer(group, scale, sliding_window, softcap, s_aux)
    outs = [_decode(packed, key, value, p, layer) if p.gather is None else _join(packed, key, value, p, layer)
            for p in slot_plan.parts]  # fmt: skip
    out = outs[0] if len(outs) == 1 else torch.cat(outs)
    return out.unsqueeze(0), None


def _decode(packed: torch.Tensor, key: torch.Tensor, value: torch.Tensor, part: Part, layer: _Layer) -> torch.Tensor:
    mask = part.mask(layer.window, packed.dtype)
    rows, keys = mask.shape[0], mask.shape[3]
    query = packed[:rows].view(rows, -1, layer.group, packed.shape[2])  # [rows, kv_heads, group, dim]
    if part.slots is None:
        key, value = key[:rows, :, :keys], value[:rows, :, :keys]
    else:
        key = key[:, :, :keys].index_select(0, part.slots)
        value = value[:, :, :keys].index_select(0, part.slots)
    small = layer.plain and query.device.type == "cpu"
    out = _attend_small(query, key, value, mask, layer) if small else _attend(query, key, value, mask, layer)
    return out.flatten(1, 2)


def _join(packed: torch.Tensor, key: torch.Tensor, value: torch.Tensor, part: Part, layer: _Layer) -> torch.Tensor:
    assert part.gather is not None
    assert part.scatter is not None
    assert part.slots is not None
    mask = part.mask(layer.window, packed.dtype)
    rows, length, keys = mask.shape[0], mask.shape[2], mask.shape[3]
    query = packed.index_select(0, part.gather).view(rows, length, -1, layer.group, packed.shape[2])
    query = query.permute(0, 2, 3, 1, 4).flatten(2, 3)  # [rows, kv_heads, group * length, dim]
    key = key[:, :, :keys].index_select(0, part.slots)
    value = value[:, :, :keys].index_select(0, part.slots)
    if layer.group > 1:
        mask = mask.repeat(1, 1, layer.group, 1)
    out = _attend(query, key, value, mask, layer)
    out = out.view(rows, -1, layer.group, length, value.shape[3]).permute(0, 3, 1, 2, 4)
    return out.reshape(rows * length, packed.shape[1], value.shape[3]).index_select(0, part.scatter)


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, layer: _Layer
) -> torch.Tensor:
    """Attention of [rows, kv_heads, group * length, dim]; sinks and soft caps take the long way."""
    if layer.plain:
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=layer.scale)
    scores = torch.matmul(query, key.transpose(2, 3)) * layer.scale
    if layer.softcap is not None:
        scores = torch.tanh(scores / layer.softcap) * layer.softcap
    scores = scores + mask
    if layer.sinks is not None:
        sinks = layer.sinks.to(scores.dtype).view(1, -1, layer.group, 1)  # one per head: [1, kv_heads, group, 1]
        sinks = sinks.expand(scores.shape[0], -1, -1, scores.shape[2] // layer.group)
        scores = torch.cat([scores, sinks.flatten(2, 3).unsqueeze(3)], dim=-1)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return torch.matmul(weights[..., : key.shape[2]], value)


def _attend_small(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, layer: _Layer
) -> torch.Tensor:
    """The same for few queries a row, as two batched products: on a CPU half the time of the library's kernel."""
    heads = key.shape[1]
    flat = mask.expand(-1, heads, -1, -1).flatten(0, 1)
    scores = torch.baddbmm(flat, query.flatten(0, 1), key.flatten(0, 1).transpose(1, 2), alpha=layer.scale)
    return torch.bmm(torch.softmax(scores, dim=-1), value.flatten(0, 1)).view(-1, heads, layer.group, value.shape[3])


def register() -> str:
    """Make the function known to transformers; returns the name to set as a model's attention implementation."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, slots_attention)
    return NAME
