"""How many episodes may be under way at once: a limit that can be moved while they play."""

from __future__ import annotations

import asyncio
from collections import deque


class Room:
    """An async context manager: inside, one of `limit` places is taken. First come, first served.

    A lower limit ends nobody: places that come free are not given out until fewer are taken.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self.taken = 0
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def limit(self) -> int:
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = limit
        self._admit()

    @property
    def waiting(self) -> int:
        """Those that wait for a place."""
        return len(self._queue)

    async def __aenter__(self) -> None:
        if self.taken < self._limit and not self._queue:
            self.taken += 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # it was given one at the same moment
                self._leave()
            elif place in self._queue:
                self._queue.remove(place)
            raise

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        self.taken -= 1
        self._admit()

    def _admit(self) -> None:
        while self._queue and self.taken < self._limit:
            place = self._queue.popleft()
            if not place.done():
                self.taken += 1
                place.set_result(None)
