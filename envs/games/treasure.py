"""`agentgym/Treasure-v0`: a house to explore, perhaps a locked door and its key, and a treasure with a number on it."""

from __future__ import annotations

import random
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from agentgym.envs.games.house import ROOMS, House, build
from agentgym.envs.script import call, say
from agentgym.envs.tasks import Drawn, TaskSet, chosen_kinds, generated_tasks
from agentgym.envs.tool_env import ToolEnv
from agentgym.errors import ConfigError
from agentgym.protocols import Policy
from agentgym.tools.arguments import BadArguments
from agentgym.tools.decorator import ToolFailed, tool
from agentgym.tools.episode import Episode
from agentgym.types import Message, Task

KINDS = ("find", "locked", "bring")
SIZE = {"find": 6, "locked": 6, "bring": 8}
"""Rooms of a house, by kind."""
LOOKS = (
    *("amber", "ancient", "black", "blue", "bronze", "copper", "golden", "green", "grey", "heavy"),
    *("iron", "ivory", "pearl", "purple", "red", "ruby", "silver", "tiny", "white", "yellow"),
)
THINGS = (
    *("bell", "bowl", "bracelet", "brooch", "clock", "comb", "compass", "crown", "cup", "dagger"),
    *("flute", "goblet", "harp", "locket", "mask", "medal", "mirror", "necklace", "ring", "statue"),
)
SIZES = {"train": 6_000, "test": 1_200}
HOLDOUT = 1 / 6
GIVES_UP = "lost"


@tool
def look(episode: Episode) -> str:
    """The room you are in: its doors, and what lies there."""
    return _house(episode).describe()


@tool
def go(room: str, episode: Episode) -> str:
    """Go through a door into the next room, and look round there.

    Args:
        room: the room behind the door, such as hall
    """
    house = _house(episode)
    if room not in house.doors[house.here]:
        raise BadArguments(f"no door leads from here to {room!r}")
    if room == house.locked:
        episode.tag("met_lock")
        raise ToolFailed(f"the door to {room} is locked")
    episode.count("moves")
    if room in house.seen:
        episode.count("revisits")
    house.here = room
    house.seen.add(room)
    return house.describe()


@tool
def take(thing: str, episode: Episode) -> str:
    """Pick up something that lies in the room you are in: a key, or the treasure, whose number you then can read.

    Args:
        thing: what to pick up, such as key
    """
    house = _house(episode)
    if thing == "key" and house.key == house.here:
        house.key, house.has_key = "", True
        return "you have the key"
    if thing == house.treasure and house.hidden == house.here and not house.taken:
        house.taken = True
        return f"you have the {thing}; its number is {house.number}"
    raise BadArguments(f"there is no {thing!r} to take here")


@tool
def unlock(room: str, episode: Episode) -> str:
    """Unlock the door to a neighbouring room with the key that you carry.

    Args:
        room: the room behind the locked door
    """
    house = _house(episode)
    if room not in house.doors[house.here] or room != house.locked:
        raise BadArguments(f"no locked door leads from here to {room!r}")
    if not house.has_key:
        raise ToolFailed("you have no key")
    house.locked = ""
    return f"the door to {room} is open"


def _house(episode: Episode) -> House:
    house: House = episode.state["house"]
    return house


class TreasureEnv(ToolEnv):
    """A treasure hunt in a house that is drawn anew for each episode.

    ## Description
    "You are in the hall. Find the silver ring and say its number." The agent goes from room to room and sees of the
    house only the room it is in: it has to remember where it has been, come back from dead ends, fetch the key of a
    locked door, pick the treasure up and say the number engraved on it.

    ## Kinds
    `find`: 6 rooms. `locked`: 6 rooms, and the treasure is behind a locked door whose key lies elsewhere. `bring`: 8
    rooms, a locked door, and the treasure is to be brought back to where the agent began.

    ## Tools
    `look()`, `go(room)` -> the room: "hall: doors to attic, study; here a key". `take(thing)`. `unlock(room)`.

    ## Starting state
    A tree of rooms with up to 3 doors each, the treasure in another room than the agent, its number of four digits:
    all drawn from the episode's generator. Every house can be won. Below the question stands what the agent sees of
    its room. No system message.

    ## Reward
    `reward`: 1 if the agent's own last message is the treasure's number and nothing else (spaces aside), and, in
    `bring`, the agent is back with it; else 0. A guess is right in 1 of 9,000; the number stands nowhere but on the
    treasure that one has taken. Tag `met_lock`: the agent stood before the locked door. Metrics: `moves`, `revisits`
    (moves into a room where it had been), `found` (it took the treasure), `tool_calls`, `tool_errors`.

    ## Episode end
    Terminated by an answer (or 3 malformed messages in a row), truncated after `max_turns` = 30 messages.

    ## Tasks
    6,000 generated train tasks and 1,200 test tasks; task i is of kind i % 3. A question is held out by its hash.

    ## Arguments
    kinds: those to play, default all. rooms: rooms of every house, 3 to 12; 0: as the kind has.
    demo_mistakes: probability that the `demo` expert answers "lost" straight away.
    demo_patience: probability that it turns back at a dead end, or before a lock; else it answers "lost".

    ## Versions
    v0: first.
    """

    tools = (look, go, take, unlock)
    weights = {"found": 0.0}  # noqa: RUF012 - read-only
    max_turns = 30

    def __init__(
        self,
        *args: Any,
        kinds: Sequence[str] = KINDS,
        rooms: int = 0,
        demo_mistakes: float = 0.3,
        demo_patience: float = 0.3,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        if rooms and not 3 <= rooms <= 12:
            raise ConfigError(f"Treasure-v0: rooms = {rooms!r}: give 3 to 12, or 0 for those of the kind")
        self.kinds = chosen_kinds("Treasure-v0", kinds, KINDS)
        self.rooms = rooms
        self.demo_mistakes = demo_mistakes
        self.demo_patience = demo_patience

    def make_tasks(self, split: str) -> TaskSet:
        return TaskSet(task for task in generate(split) if task.kind in self.kinds)

    def setup(self, episode: Episode) -> None:
        task = episode.task
        start, treasure = task.metadata["start"], task.metadata["treasure"]
        house = build(self.rooms or SIZE[task.kind], start, treasure, task.kind != "find", episode.rng)
        house.seen.add(start)
        episode.state = {"house": house}
        episode.metrics |= {"moves": 0, "revisits": 0}
        asked = episode.messages[-1]
        episode.messages[-1] = replace(asked, content=f"{asked.text}\n{house.describe()}")

    def reward(self, task: Task, answer: str, episode: Episode) -> dict[str, float]:
        house = _house(episode)
        right = house.taken and answer.strip() == str(house.number)
        back = task.kind != "bring" or house.here == task.metadata["start"]
        return {"reward": float(right and back), "found": float(house.taken)}

    def expert(self, task: Task, seed: int, style: str = "gold") -> Policy:
        """`gold` explores the nearest unknown room first and wins; `demo` is the imperfect play of warm starts."""
        return Explorer(task, None if style == "gold" else self, random.Random(seed))


@dataclass(slots=True)
class Map:
    """What can be known of a house from the conversation so far."""

    here: str
    doors: dict[str, list[str]] = field(default_factory=dict)
    """The doors of the rooms that were entered."""
    things: dict[str, str] = field(default_factory=dict)
    """Room by what lies there."""
    locked: str = ""
    has_key: bool = False
    number: str = ""
    turned_in: bool = False
    """The last thing seen was new: a room entered for the first time, or a lock."""

    @classmethod
    def read(cls, start: str, conversation: Sequence[Message]) -> Map:
        known = cls(start)
        called: list[str] = []
        for message in conversation:
            if message.role == "assistant":
                called += [str(made.arguments.get("room", "")) for made in message.tool_calls]
            elif message.role == "tool":
                known.note(message.text, called[-1])
            elif message.role == "user":
                known.note(message.text.rpartition("\n")[2], "")
        return known

    def note(self, text: str, room: str) -> None:
        """Take in one tool's answer; `room` is the one its call named."""
        self.turned_in = False
        if ": doors to " in text:
            self._enter(text)
        elif text.endswith("is locked"):
            self.locked, self.turned_in = room, True
        elif text.endswith("is open"):
            self.locked = ""
        elif text == "you have the key":
            self.has_key = True
            self.things.pop("key", None)
        elif text.startswith("you have the"):
            self.number = text.rpartition(" ")[2]

    def _enter(self, text: str) -> None:
        self.here, _, rest = text.partition(": doors to ")
        doors, _, things = rest.partition("; here ")
        self.turned_in = self.here not in self.doors
        self.doors[self.here] = doors.split(", ")
        for thing in re.split(" and ", things) if things else ():
            self.things[thing.partition(" ")[2]] = self.here

    def way(self, wanted: Callable[[str], bool]) -> list[str]:
        """The rooms to enter, one after the other, to the nearest that is wanted; not through a locked door."""
        ways = deque([[self.here]])
        met = {self.here}
        while ways:
            way = ways.popleft()
            if wanted(way[-1]):
                return way[1:]
            for room in self.doors.get(way[-1], ()):
                if room not in met and room != self.locked:
                    met.add(room)
                    ways.append([*way, room])
        return []


class Explorer:
    """Plays by what it reads: the treasure if it knows where that is, the key, the lock, else the nearest new room.

    With `habits` (an env's demo_* numbers) it makes the mistakes that they ask for.
    """

    def __init__(self, task: Task, habits: TreasureEnv | None, rng: random.Random):
        self._about: Mapping[str, Any] = task.metadata
        self._back = task.kind == "bring"
        self._habits = habits
        self._rng = rng

    def __call__(self, conversation: Sequence[Message]) -> Message:
        known = Map.read(self._about["start"], conversation)
        calls = sum(len(message.tool_calls) for message in conversation)
        habits = self._habits
        if habits is not None and not calls and self._rng.random() < habits.demo_mistakes:
            return say(GIVES_UP)
        tool, argument, value = self._next(known)
        turns_back = tool == "go" and value in known.doors and known.turned_in and not known.number
        if habits is not None and turns_back and self._rng.random() >= habits.demo_patience:
            return say(GIVES_UP)
        return call(tool, f"call_{calls}", **{argument: value}) if tool else say(value)

    def _next(self, known: Map) -> tuple[str, str, str]:
        """Tool (none: an answer), the name of its argument, and that."""
        if known.number:
            if self._back and known.here != self._about["start"]:
                return "go", "room", known.way(lambda room: room == self._about["start"])[0]
            return "", "", known.number
        for thing in (self._about["treasure"], "key"):
            if known.things.get(thing) == known.here:
                return "take", "thing", thing
        if known.locked and known.has_key:
            if known.locked in known.doors[known.here]:
                return "unlock", "room", known.locked
            return "go", "room", known.way(lambda room: known.locked in known.doors.get(room, ()))[0]
        return "go", "room", known.way(lambda room: room not in known.doors)[0]


@lru_cache(maxsize=len(SIZES))
def generate(split: str) -> TaskSet:
    """The tasks of a split, always the same ones: kind i % 3, no question twice, each split by the question's hash."""
    return generated_tasks(split, SIZES[split], HOLDOUT, {kind: _tasks(kind) for kind in KINDS})


def _tasks(kind: str) -> Iterator[Drawn]:
    rng = random.Random(f"Treasure-v0 {kind}")
    while True:
        start, treasure = rng.choice(ROOMS), f"{rng.choice(LOOKS)} {rng.choice(THINGS)}"
        back = ", bring it back" if kind == "bring" else ""
        prompt = f"You are in the {start}. Find the {treasure}{back} and say its number."
        yield prompt, {"start": start, "treasure": treasure}
