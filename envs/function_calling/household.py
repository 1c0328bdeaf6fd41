"""Functions of a made-up household: each call that is accepted is answered with a number of its own."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from agentgym.envs.function_calling.docs import Function
from agentgym.tools.decorator import FunctionTool, tool
from agentgym.tools.episode import Episode
from agentgym.types import ToolCall

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
DISHES = ("bread", "cake", "eggs", "pasta", "rice", "soup", "stew", "tea")
ROOMS = ("attic", "bathroom", "bedroom", "cellar", "hall", "kitchen", "office", "porch")
GOODS = ("apples", "beans", "candles", "lemons", "nuts", "onions", "pears", "plums", "sponges", "towels")
CREATURES = ("cat", "dog", "hens", "horse", "parrot", "rabbit")


def _accept(episode: Episode, name: str, **arguments: Any) -> int:
    made: list[ToolCall] = episode.state["made"]
    made.append(ToolCall(f"made_{len(made)}", name, arguments))
    number = 10 + int(episode.rng.random() * 90)
    episode.state["numbers"].append(str(number))
    return number


@tool
def set_alarm(day: str, time: str, episode: Episode) -> int:
    """Set an alarm.

    Args:
        day: day of the week, such as Monday
        time: such as 7:05 or 18:30
    """
    return _accept(episode, "set_alarm", day=day, time=time)


@tool
def start_timer(dish: str, minutes: int, episode: Episode) -> int:
    """Start a kitchen timer.

    Args:
        dish: what is cooking
        minutes: how long
    """
    return _accept(episode, "start_timer", dish=dish, minutes=minutes)


@tool
def set_light(room: str, level: int, episode: Episode) -> int:
    """Set the light of a room.

    Args:
        room: which room
        level: brightness in percent
    """
    return _accept(episode, "set_light", room=room, level=level)


@tool
def set_heat(room: str, degrees: int, episode: Episode) -> int:
    """Heat a room.

    Args:
        room: which room
        degrees: in Celsius
    """
    return _accept(episode, "set_heat", room=room, degrees=degrees)


@tool
def add_item(item: str, count: int, episode: Episode) -> int:
    """Put something on the shopping list.

    Args:
        item: what to buy
        count: how many
    """
    return _accept(episode, "add_item", item=item, count=count)


@tool
def drop_item(item: str, episode: Episode) -> int:
    """Take something off the shopping list.

    Args:
        item: what not to buy
    """
    return _accept(episode, "drop_item", item=item)


FAMILIES: Mapping[str, tuple[FunctionTool, ...]] = {
    "clock": (set_alarm, start_timer),
    "rooms": (set_light, set_heat),
    "shopping": (add_item, drop_item),
}
FUNCTIONS: Mapping[str, Function] = {
    one.name: Function(one.name, one.name, one.schema["function"]) for family in FAMILIES.values() for one in family
}

Drawn: TypeAlias = tuple[str, dict[str, Any]]
"""A request's text (no capital, no full stop) and the arguments that it asks for."""


def _time(rng: random.Random) -> str:
    return f"{rng.randrange(5, 23)}:{rng.randrange(60):02}"


def _alarm(rng: random.Random) -> Drawn:
    day, time = rng.choice(DAYS), _time(rng)
    return f"set an alarm for {time} on {day}", {"day": day, "time": time}


def _timer(rng: random.Random) -> Drawn:
    dish, minutes = rng.choice(DISHES), rng.randrange(2, 100)
    return f"start a timer of {minutes} minutes for the {dish}", {"dish": dish, "minutes": minutes}


def _light(rng: random.Random) -> Drawn:
    room, level = rng.choice(ROOMS), rng.randrange(1, 100)
    return f"set the light in the {room} to {level}", {"room": room, "level": level}


def _heat(rng: random.Random) -> Drawn:
    room, degrees = rng.choice(ROOMS), rng.randrange(12, 28)
    return f"heat the {room} to {degrees} degrees", {"room": room, "degrees": degrees}


def _add(rng: random.Random) -> Drawn:
    item, count = rng.choice(GOODS), rng.randrange(2, 100)
    return f"put {count} {item} on the list", {"item": item, "count": count}


def _drop(rng: random.Random) -> Drawn:
    item = rng.choice(GOODS)
    return f"take the {item} off the list", {"item": item}


REQUESTS: Mapping[str, Callable[[random.Random], Drawn]] = {
    "set_alarm": _alarm,
    "start_timer": _timer,
    "set_light": _light,
    "set_heat": _heat,
    "add_item": _add,
    "drop_item": _drop,
}
ELSEWHERE: Sequence[Callable[[random.Random], str]] = (
    lambda rng: f"feed the {rng.choice(CREATURES)} at {_time(rng)} on {rng.choice(DAYS)}",
    lambda rng: f"paint the {rng.choice(ROOMS)} on {rng.choice(DAYS)}",
    lambda rng: f"sing for {rng.randrange(2, 100)} minutes in the {rng.choice(ROOMS)}",
    lambda rng: f"peel {rng.randrange(2, 100)} {rng.choice(GOODS)} for the {rng.choice(DISHES)}",
    lambda rng: f"brush the {rng.choice(CREATURES)} for {rng.randrange(2, 100)} minutes",
)
"""Requests that no function here serves, in the same words where that is possible."""
