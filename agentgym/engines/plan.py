"""Where the tokens of one forward pass come from, go to, and what they may see.

All new tokens of a step lie in one packed row [1, tokens]: first one token for each decoding sequence, then the new
context of sequences that join. Linear layers thus never see padding; only attention takes the parts apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

Ints = npt.NDArray[np.int64]
Window = int | None


@dataclass(slots=True)
class Part:
    """Sequences that attention treats together.

    Decoding ones have one token each, the first of the packed row, in order. Joining ones are padded to the longest.
    """

    slots: torch.Tensor | None  # [rows]; None: the first `rows` slots in order, read without a copy
    at: torch.Tensor | None  # [rows, queries] position of each token
    keys: int  # columns to read
    gather: torch.Tensor | None = None  # [rows * queries] packed index of each padded token; None: decoding
    scatter: torch.Tensor | None = None  # [tokens] padded index of each packed token
    masks: dict[Window, torch.Tensor] = field(default_factory=dict)

    def mask(self, window: Window, dtype: torch.dtype) -> torch.Tensor:
        """Additive, [rows, 1, queries, keys]: causal, and at most `window` keys back, itself included."""
        if window not in self.masks:
            assert self.at is not None
            at = self.at[:, None, :, None]
            column = torch.arange(self.keys, device=at.device)
            hidden = column > at
            if window is not None:
                hidden |= column <= at - window
            mask = torch.zeros(hidden.shape, dtype=dtype, device=at.device)
            self.masks[window] = mask.masked_fill_(hidden, float("-inf"))
        return self.masks[window]


@dataclass(slots=True)
class StepPlan:
    """One forward pass."""

    input_ids: torch.Tensor  # [1, tokens]
    position_ids: torch.Tensor  # [1, tokens]
    write_slots: torch.Tensor  # [tokens]
    write_columns: torch.Tensor  # [tokens]
    last: torch.Tensor  # [n] packed indices of the tokens whose logits are wanted
    parts: list[Part]  # in the order of their tokens

    @property
    def kind(self) -> tuple[str, ...]:
        """What may differ in structure between two plans; all else are sizes and values."""
        return tuple("join" if p.gather is not None else "all" if p.slots is None else "some" for p in self.parts)


def join(first: int, slots: Ints, starts: Ints, counts: Ints, columns: int, device: torch.device) -> Part:
    """The part of joining sequences with `counts` new tokens from position `starts` on; all arrays are [rows].

    Their tokens lie at [first, first + counts.sum()) of the packed row, sequence after sequence.
    """
    queries = int(counts.max())
    offsets = first + np.cumsum(counts) - counts
    column = np.arange(queries)
    real = column < counts[:, None]  # [rows, queries]
    # padding repeats the sequence's first token: its result is dropped
    gather = offsets[:, None] + np.where(real, column, 0)
    return Part(
        torch.from_numpy(slots).to(device),
        torch.from_numpy(starts[:, None] + column).to(device),
        min(round_up(int((starts + counts).max())), columns),
        torch.from_numpy(gather.reshape(-1)).to(device),
        torch.from_numpy(np.flatnonzero(real)).to(device),
    )


def round_up(length: int) -> int:
    """To the next multiple of 16, so that shapes repeat."""
    return -(-length // 16) * 16
