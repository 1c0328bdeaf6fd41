"""Small generated programming problems, each with a solution and tests that its results make."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from agentgym.envs.verifiers.code.rows import CodeProblem

SHOWN = 1
TESTS = 5
_Made = tuple[str, str, str, list[Any]]  # what is asked, the function's name, its source, arguments to test it on


def _scale(rng: random.Random) -> _Made:
    a, b = rng.randrange(2, 60), rng.randrange(1, 90)
    asked = f"a function scale(x) that returns x times {a}, plus {b}"
    return asked, "scale", f"def scale(x):\n    return x * {a} + {b}\n", [rng.randrange(-50, 50) for _ in range(TESTS)]


def _clamp(rng: random.Random) -> _Made:
    low = rng.randrange(-40, 20)
    high = low + rng.randrange(5, 60)
    asked = f"a function clamp(x) that returns x, but {low} where x is less and {high} where it is more"
    source = f"def clamp(x):\n    return max({low}, min({high}, x))\n"
    return asked, "clamp", source, [low - 3, low, high, high + 9, (low + high) // 2]


def _sum_of_multiples(rng: random.Random) -> _Made:
    k = rng.randrange(2, 99)
    asked = f"a function total(numbers) that returns the sum of those numbers of a list that {k} divides"
    source = f"def total(numbers):\n    return sum(n for n in numbers if n % {k} == 0)\n"
    return asked, "total", source, [[], *([rng.randrange(-99, 200) for _ in range(12)] for _ in range(TESTS - 1))]


def _every(rng: random.Random) -> _Made:
    step, first = rng.randrange(2, 12), rng.randrange(0, 10)
    asked = f"a function pick(items) that returns every item of a list from index {first} on, in steps of {step}"
    lists = [list(range(rng.randrange(8, 30))) for _ in range(TESTS - 1)]
    return asked, "pick", f"def pick(items):\n    return items[{first}::{step}]\n", [[], *lists]


def _count(rng: random.Random) -> _Made:
    one, two = rng.sample("abcdeilmnorstuy", 2)
    asked = f"a function count(text) that returns how often '{one}' or '{two}' is in a text, in either case"
    source = f"def count(text):\n    return sum(c in '{one}{two}' for c in text.lower())\n"
    words = ["", one.upper() + two, "An unusually long sentence, Sir", "nothing", one * 3 + "xyz"]
    return asked, "count", source, words


def _replace(rng: random.Random) -> _Made:
    old, new = rng.sample("aeinorst", 2)
    k = rng.randrange(2, 7)
    asked = f"a function change(text) that puts '{new}' for each '{old}' of a text and repeats the result {k} times"
    source = f"def change(text):\n    return text.replace('{old}', '{new}') * {k}\n"
    return asked, "change", source, ["", old, "transition", f"{old}{new}{old}", "no more"]


FAMILIES: dict[str, Callable[[random.Random], _Made]] = {
    "scale": _scale,
    "clamp": _clamp,
    "sum": _sum_of_multiples,
    "every": _every,
    "count": _count,
    "replace": _replace,
}


def code_problems(count: int) -> Iterator[tuple[str, CodeProblem]]:
    """`count` problems with their kinds, always the same ones, no text twice."""
    rng = random.Random("CodeTests-v0")
    seen: set[str] = set()
    names = list(FAMILIES)
    while len(seen) < count:
        kind = names[len(seen) % len(names)]
        asked, name, source, arguments = FAMILIES[kind](rng)
        if asked in seen:
            continue
        seen.add(asked)
        scope: dict[str, Any] = {}
        exec(source, scope)  # our own source, made above
        tests = [f"assert {name}({given!r}) == {scope[name](given)!r}" for given in arguments]
        prompt = f"Write {asked}.\nYour code should pass this test: {tests[SHOWN]}"
        yield kind, CodeProblem(str(len(seen)), prompt, tests, solution=source, shown=tests[SHOWN])
