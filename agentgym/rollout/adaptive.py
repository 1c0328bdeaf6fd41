"""How many episodes play at once, by what the engine can take (AIMD, as in TCP: Jacobson, 1988).

One more for every look at which the engine's queue is empty and its cache has room, and the bound was what kept others
out; a fifth less where requests queue, or the cache is so full that sequences lose theirs. Until the first such sign
the bound doubles at each look. Too few under way leave the engine idle; too many make it throw caches away and compute
them anew, and all tokens older.
"""

from __future__ import annotations

from agentgym.engines.load import Load
from agentgym.rollout.room import Room

LOOK_SECONDS = 0.5
"""Between two looks at the engine."""
BACK = 0.8
"""What is left of the bound where the engine has too much to do."""
QUEUED = 0.05
"""Requests that may queue, of the episodes under way: a few meet by chance."""
FIRST = 64
"""Where the bound begins, for an engine that does not say how many sequences it has room for."""
LEAST = 4
"""Where it ends, for such an engine."""
FULL = 0.95
"""Share of a cache from which on it is full."""


class Adaptive:
    """Moves a room's limit, which is never more than `ceiling`. `slots`: sequences that the engine surely has room for,
    so that fewer would be of no use; 0 where that is not known."""

    def __init__(self, room: Room, ceiling: int, *, slots: int = 0):
        self._room, self._ceiling, self._floor = room, ceiling, min(slots or LEAST, ceiling)
        self._step = max(1, ceiling // 64)
        self._doubling = True
        self._lost = 0
        self.backed_off = 0
        """Times that the bound was lowered."""
        room.limit = min(ceiling, slots or FIRST)

    def look(self, load: Load) -> None:
        """Take in one look at the engine."""
        room = self._room
        lost, self._lost = load.lost - self._lost, load.lost
        if load.queued > QUEUED * room.taken or lost > 0 or load.cache >= FULL:
            self._doubling = False
            if room.taken <= room.limit:  # else the last step back has not had its effect yet
                room.limit = max(self._floor, int(min(room.limit, max(room.taken, 1)) * BACK))
                self.backed_off += 1
        elif not load.queued and room.waiting and room.taken >= room.limit:
            more = room.limit if self._doubling else self._step
            room.limit = min(self._ceiling, room.limit + more)
