"""A random generator that is made at the first draw."""

from __future__ import annotations

import numpy as np
from gymnasium.utils import seeding


class Dice:
    """What an episode draws from, by its seed. To make a generator costs as much as a step, and many an episode draws
    nothing; its draws are those of Gymnasium's generator of that seed.

    Raises what Gymnasium raises where the seed is none.
    """

    __slots__ = ("_rng", "_seed")

    def __init__(self, seed: int):
        self._seed = seed
        self._rng: np.random.Generator | None = None
        if not isinstance(seed, int) or seed < 0:
            self.rng  # noqa: B018 - it says what is wrong

    @property
    def rng(self) -> np.random.Generator:
        if self._rng is None:
            self._rng, _ = seeding.np_random(self._seed)
        return self._rng
