"""Attention within rows that lie one after the other in one sequence: no row sees another.

Everything but attention works on a packed sequence as it is. Attention takes the rows apart: those of about one length
are stacked, [rows, heads, length, dim], and go through torch's causal kernel, so that no mask over the whole sequence
ever exists and nothing is computed between rows. Works for every model whose attention transformers looks up by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "agentgym_segments"
SLACK = 0.8
"""Rows are stacked with longer ones down to this share of their length..."""
SHORT = 16
"""...or if they are shorter by no more than so many tokens."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Some rows of a packed sequence, padded to the longest: `start` to `stop` of the sequence, in order.

    `gather` [rows * length] picks each row's tokens (its last again where it is shorter), `keep` [stop - start] finds
    them back in what was stacked. None where the rows are of one length.
    """

    start: int
    stop: int
    rows: int
    length: int
    gather: torch.Tensor | None = None
    keep: torch.Tensor | None = None


class Stacks:
    """The stacks of a packed sequence. No tuple: a compiled model looks into those, and would have a program for each
    number of stacks."""

    def __init__(self, each: Sequence[Stack]):
        self._each = tuple(each)

    def __iter__(self) -> Iterator[Stack]:
        return iter(self._each)

    def __len__(self) -> int:
        return len(self._each)


def stacks_of(lengths: Sequence[int], device: torch.device) -> Stacks:
    """Of rows that lie one after the other in descending length."""
    found: list[Stack] = []
    start = first = 0
    for i in range(1, len(lengths) + 1):
        longest = lengths[first]
        if i < len(lengths) and lengths[i] >= min(SLACK * longest, longest - SHORT):
            continue
        mine = np.asarray(lengths[first:i])
        found.append(_stack(start, mine, device))
        start, first = start + int(mine.sum()), i
    return Stacks(found)


def _stack(start: int, lengths: Any, device: torch.device) -> Stack:
    length, total = int(lengths[0]), int(lengths.sum())
    if (lengths == length).all():
        return Stack(start, start + total, len(lengths), length)
    offsets = np.cumsum(lengths) - lengths
    within = np.minimum(np.arange(length)[None], lengths[:, None] - 1)
    gather = start + offsets[:, None] + within
    real = np.arange(length)[None] < lengths[:, None]
    return Stack(
        start,
        start + total,
        len(lengths),
        length,
        torch.from_numpy(gather.reshape(-1)).to(device),
        torch.from_numpy(np.nonzero(real.reshape(-1))[0]).to(device),
    )


def segments_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    stacks: Stacks | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """query [B, heads, T, dim], key and value [B, kv_heads, T, dim] -> [B, T, heads, dim].

    Without `stacks` every sequence is one row, padded on the right. With them B is 1.
    """
    scale = float(query.shape[-1]) ** -0.5 if scaling is None else scaling
    kind = _Kind(scale, sliding_window, softcap, s_aux)
    if stacks is None:
        return _causal(query, key, value, kind).transpose(1, 2).contiguous(), None
    packed = [tensor[0].transpose(0, 1) for tensor in (query, key, value)]  # [T, heads, dim]
    outs = [_stacked(packed, stack, kind) for stack in stacks]
    return (outs[0] if len(outs) == 1 else torch.cat(outs)).unsqueeze(0), None


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a layer's attention is, apart from its tensors."""

    scale: float
    window: int | None
    softcap: float | None
    sinks: torch.Tensor | None


def _stacked(packed: Sequence[torch.Tensor], stack: Stack, kind: _Kind) -> torch.Tensor:
    """[stop - start, heads, dim] of one stack."""
    if stack.gather is None:
        mine = [tensor[stack.start : stack.stop] for tensor in packed]
    else:
        mine = [tensor.index_select(0, stack.gather) for tensor in packed]
    query, key, value = (t.view(stack.rows, stack.length, *t.shape[1:]).transpose(1, 2) for t in mine)
    out = _causal(query, key, value, kind).transpose(1, 2).flatten(0, 1)
    return out if stack.keep is None else out.index_select(0, stack.keep)


def _causal(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, kind: _Kind) -> torch.Tensor:
    """[rows, heads, length, dim], each row causal."""
    length, grouped = query.shape[2], query.shape[1] != key.shape[1]
    plain = kind.softcap is None and kind.sinks is None
    whole = plain and (kind.window is None or kind.window >= length)
    if grouped and not (whole and _shares_heads(query)):
        times = query.shape[1] // key.shape[1]
        key, value, grouped = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1), False
    if whole:
        return scaled_dot_product_attention(
            query, key, value, is_causal=length > 1, scale=kind.scale, enable_gqa=grouped
        )
    mask = _mask(length, kind.window, query)
    if plain:
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=kind.scale)
    scores = torch.matmul(query, key.transpose(2, 3)) * kind.scale
    if kind.softcap is not None:
        scores = torch.tanh(scores / kind.softcap) * kind.softcap
    scores = scores + mask
    if kind.sinks is not None:
        sinks = kind.sinks.to(scores.dtype).view(1, -1, 1, 1).expand(len(scores), -1, length, 1)
        scores = torch.cat([scores, sinks], dim=-1)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return torch.matmul(weights[..., :length], value)


def _shares_heads(query: torch.Tensor) -> bool:
    """Whether torch has a kernel for heads that share keys: on a GPU only in half precision. Elsewhere it would hold
    all scores at once, [heads, length, length]."""
    return query.device.type != "cuda" or query.dtype in (torch.bfloat16, torch.float16)


def _mask(length: int, window: int | None, like: torch.Tensor) -> torch.Tensor:
    """[length, length]: 0 where a token sees another, -inf elsewhere; `window` counts the token itself."""
    at = torch.arange(length, device=like.device)
    apart = at[:, None] - at[None]
    seen = (apart >= 0) & (apart < (length if window is None else window))
    return torch.zeros(length, length, dtype=like.dtype, device=like.device).masked_fill(~seen, float("-inf"))


def register() -> str:
    """Make the function known to transformers; returns the name to set as a model's attention implementation."""
    if NAME not in ALL_ATTENTION_FUNCTIONS.valid_keys():  # it may be there untraced
        ALL_ATTENTION_FUNCTIONS.register(NAME, segments_attention)
    return NAME


def leave_untraced() -> None:
    """For models that are compiled: attention is the kernel's work, and its loop over the stacks is another one in
    every micro-batch, which a compiled program would have to be made anew for."""
    untraced = torch.compiler.disable(segments_attention)  # type: ignore[no-untyped-call]
    ALL_ATTENTION_FUNCTIONS.register(NAME, untraced)
