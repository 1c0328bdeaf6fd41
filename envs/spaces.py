"""`Unicode`: the space of all texts up to a length, which Gymnasium's own `Text` cannot honestly be."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

_PRINTABLE = "".join(map(chr, range(32, 127))) + "äéßñøλЖ中日한🙂"


class Unicode(spaces.Text):
    """Any text of `min_length` to `max_length` characters. `sample` draws up to 64 printable ones."""

    def __init__(self, max_length: int = 1_000_000, *, min_length: int = 0, seed: int | None = None):
        super().__init__(max_length, min_length=min_length, charset=_PRINTABLE, seed=seed)

    def contains(self, x: Any) -> bool:
        return isinstance(x, str) and self.min_length <= len(x) <= self.max_length

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """A text of up to 64 characters (or `min_length`, if that is more); masks are those of `Text`."""
        if mask is not None or probability is not None:
            return super().sample(mask, probability)
        longest = min(self.max_length, max(64, self.min_length))
        length = int(self.np_random.integers(self.min_length, longest + 1))
        places: np.ndarray[Any, np.dtype[np.int64]] = self.np_random.integers(len(_PRINTABLE), size=length)
        return "".join(_PRINTABLE[i] for i in places.tolist())

    def __repr__(self) -> str:
        return f"Unicode({self.max_length}, min_length={self.min_length})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unicode) and (self.min_length, self.max_length) == (other.min_length, other.max_length)

    __hash__ = None  # type: ignore[assignment]  # spaces are mutable (their generator), as Gymnasium's are
