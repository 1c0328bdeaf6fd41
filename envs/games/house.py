"""Small houses for `Treasure-v0`: rooms joined by doors without a circle, one of them perhaps locked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

ROOMS = (
    *("attic", "balcony", "bathroom", "bedroom", "cellar", "corridor", "garage", "garden", "hall", "kitchen"),
    *("library", "nursery", "office", "pantry", "parlour", "porch", "stable", "study", "tower", "workshop"),
)
EXITS = 3
"""Doors of a room at most."""


@dataclass(slots=True)
class House:
    """Where everything is. `locked` is the room behind the locked door, until that is opened; empty: none."""

    doors: dict[str, list[str]]
    here: str
    treasure: str
    hidden: str
    """The room of the treasure."""
    number: int
    """What is engraved on it."""
    key: str = ""
    """The room of the key; empty: there is none, or it is taken."""
    locked: str = ""
    seen: set[str] = field(default_factory=set)
    has_key: bool = False
    taken: bool = False

    def describe(self) -> str:
        """The room the agent is in, its doors, what lies there: "hall: doors to attic, study; here a key"."""
        things = ["a key"] if self.key == self.here else []
        if self.hidden == self.here and not self.taken:
            things.append(f"the {self.treasure}")
        doors = f"{self.here}: doors to {', '.join(self.doors[self.here])}"
        return f"{doors}; here {' and '.join(things)}" if things else doors


def build(rooms: int, start: str, treasure: str, locked: bool, rng: np.random.Generator) -> House:
    """A house of `rooms` rooms that can be won: the treasure is not where the agent starts, and the key of a locked
    door lies on the agent's side of it."""
    others = [room for room in ROOMS if room != start]
    names = [start, *(others[i] for i in rng.permutation(len(others))[: rooms - 1].tolist())]
    doors: dict[str, list[str]] = {start: []}
    behind: dict[str, str] = {}
    for name in names[1:]:
        free = [room for room, exits in doors.items() if len(exits) < EXITS]
        parent = free[int(rng.integers(len(free)))]
        doors[parent].append(name)
        doors[name] = [parent]
        behind[name] = parent
    for exits in doors.values():
        rng.shuffle(exits)
    hidden = names[int(rng.integers(1, rooms))]
    house = House(doors, start, treasure, hidden, int(rng.integers(1000, 10000)))
    if locked:
        way = path_to(hidden, behind)
        house.locked = way[int(rng.integers(len(way)))]
        near = [room for room in names if house.locked not in path_to(room, behind)]
        house.key = near[int(rng.integers(len(near)))]
    return house


def path_to(room: str, behind: dict[str, str]) -> Sequence[str]:
    """The rooms to enter from the start up to `room`, given the room that each is entered from."""
    way = [room]
    while way[-1] in behind:
        way.append(behind[way[-1]])
    return way[-2::-1]
