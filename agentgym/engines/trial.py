"""Steps made up to record on and to prove a recording with: all sizes differ, and sizes of one occur."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from agentgym.engines.cache import SlotCache
from agentgym.engines.plan import Part, StepPlan, join, round_up


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of a made-up step: decoding rows, new tokens of each joining sequence, and cached tokens before either."""

    decode: int
    join: tuple[int, ...]
    cached: int


RECORD = Sizes(5, (4, 7, 2), 19)
PROVE = (Sizes(3, (6, 3), 40), Sizes(1, (2,), 0), Sizes(2, (9, 2, 5, 5), 30))
_SLOTS, _COLUMNS = 12, 64


def trial_cache(like: SlotCache, seed: int) -> SlotCache:
    """A small cache with the layers of `like`, full of random numbers."""
    cache = SlotCache(_SLOTS, _COLUMNS - 1)
    generator = torch.Generator().manual_seed(seed)
    for mine, theirs in ((cache.keys, like.keys), (cache.values, like.values)):
        for buffer in theirs:
            shape = (_SLOTS, buffer.shape[1], _COLUMNS, buffer.shape[3])
            mine.append(torch.randn(shape, generator=generator).to(buffer))
    return cache


def trial_plan(kind: tuple[str, ...], sizes: Sizes, vocab: int, device: torch.device) -> StepPlan:
    """A step of `kind` (`StepPlan.kind`) with these sizes over a `trial_cache`."""
    rng = np.random.default_rng(sizes.cached)
    slots: list[int] = []
    positions: list[int] = []
    last: list[int] = []
    parts: list[Part] = []
    for name in kind:
        if name == "join":
            counts = np.array(sorted(sizes.join))
            owners = _SLOTS - 1 - np.arange(len(counts))
            starts = np.maximum(sizes.cached - np.arange(len(counts)), 0)
            parts.append(join(len(slots), owners, starts, counts, _COLUMNS, device))
            last += (len(slots) - 1 + np.cumsum(counts)).tolist()
            for owner, start, count in zip(owners.tolist(), starts.tolist(), counts.tolist(), strict=True):
                slots += [owner] * count
                positions += range(start, start + count)
        else:
            rows = np.arange(sizes.decode) if name == "all" else np.arange(sizes.decode)[::-1] + 1
            at = rng.integers(0, sizes.cached + 1, sizes.decode)
            where = None if name == "all" else torch.from_numpy(rows.copy()).to(device)
            at_rows = torch.from_numpy(at[:, None]).to(device)
            parts.append(Part(where, at_rows, round_up(int(at.max()) + 1)))
            last += range(len(slots), len(slots) + sizes.decode)
            slots += rows.tolist()
            positions += at.tolist()
    ids = rng.integers(0, vocab, len(slots))

    def tensor(values: list[int]) -> torch.Tensor:
        return torch.tensor(values, device=device)

    return StepPlan(
        tensor(ids.tolist()).unsqueeze(0),
        tensor(positions).unsqueeze(0),
        tensor(slots),
        tensor(positions),
        tensor(last),
        parts,
    )
