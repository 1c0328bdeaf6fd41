"""Where the tokens of one forward pass come from, go to, and what they may see.

All new tokens of a step lie in one packed row [1, tokens]: first one token for each decoding sequence, then the new
context of sequences that join. Linear layers thus never see padding; only attention takes the two parts apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

Ints = npt.NDArray[np.int64]


@dataclass(slots=True)
class Bucket:
    """Sequences of similar length whose new context is attended to together, padded to the longest.

    The tokens of the bucket lie at [first, first + tokens) of the packed row, sequence after sequence.
    """

    first: int
    tokens: int
    slots: torch.Tensor  # [rows]
    starts: torch.Tensor  # [rows] position of each sequence's first new token
    queries: int  # the longest sequence's new tokens
    keys: int  # columns to read
    gather: torch.Tensor | None  # [rows * queries] packed index of each padded token; None: no padding
    scatter: torch.Tensor | None  # [tokens] padded index of each packed token
    _masks: dict[int | None, torch.Tensor] = field(default_factory=dict)

    def mask(self, window: int | None, dtype: torch.dtype) -> torch.Tensor:
        """Additive, [rows, 1, queries, keys]: causal, and at most `window` keys back, itself included."""
        if window not in self._masks:
            device = self.slots.device
            at = self.starts[:, None, None, None] + torch.arange(self.queries, device=device)[:, None]
            self._masks[window] = _additive(at, self.keys, window, dtype)
        return self._masks[window]


@dataclass(slots=True)
class StepPlan:
    """One forward pass: `decode` rows of one token each, then the buckets."""

    input_ids: torch.Tensor  # [1, tokens]
    position_ids: torch.Tensor  # [1, tokens]
    write_slots: torch.Tensor  # [tokens]
    write_columns: torch.Tensor  # [tokens]
    decode: int
    decode_slots: torch.Tensor | None  # [decode]; None: the first `decode` slots in order, read without a copy
    decode_at: torch.Tensor  # [decode] position of each row's token
    decode_keys: int
    buckets: list[Bucket]
    _masks: dict[int | None, torch.Tensor] = field(default_factory=dict)

    def mask(self, window: int | None, dtype: torch.dtype) -> torch.Tensor:
        """Additive, [decode, 1, 1, keys]."""
        if window not in self._masks:
            self._masks[window] = _additive(self.decode_at[:, None, None, None], self.decode_keys, window, dtype)
        return self._masks[window]


def _additive(at: torch.Tensor, keys: int, window: int | None, dtype: torch.dtype) -> torch.Tensor:
    column = torch.arange(keys, device=at.device)
    hidden = column > at
    if window is not None:
        hidden |= column <= at - window
    return torch.zeros(hidden.shape, dtype=dtype, device=at.device).masked_fill_(hidden, float("-inf"))


def make_bucket(first: int, slots: Ints, starts: Ints, counts: Ints, columns: int, device: torch.device) -> Bucket:
    """A bucket of sequences with `counts` new tokens from position `starts` on; all arrays have shape [rows]."""
    queries, tokens = int(counts.max()), int(counts.sum())
    gather = scatter = None
    if tokens != queries * len(counts):
        offsets = first + np.concatenate(([0], np.cumsum(counts)[:-1]))
        column = np.arange(queries)
        real = column < counts[:, None]  # [rows, queries]
        # padding repeats the sequence's first token: its result is dropped
        gather = torch.from_numpy(np.where(real, offsets[:, None] + column, offsets[:, None]).reshape(-1))
        scatter = torch.from_numpy(np.flatnonzero(real))
        gather, scatter = gather.to(device), scatter.to(device)
    keys = min(round_up(int((starts + counts).max())), columns)
    return Bucket(
        first,
        tokens,
        torch.from_numpy(slots).to(device),
        torch.from_numpy(starts).to(device),
        queries,
        keys,
        gather,
        scatter,
    )


def round_up(length: int) -> int:
    """To the next multiple of 16, so that shapes repeat."""
    return -(-length // 16) * 16
