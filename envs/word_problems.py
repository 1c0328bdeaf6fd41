"""Generated word problems in GSM8K's format: a question, and a solution with its steps that ends in `#### answer`."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeAlias

from agentgym.tools.calculator import calculate

NAMES = ("Ada", "Ben", "Chen", "Dina", "Emil", "Fatma", "Goran", "Hana", "Ivo", "Jun", "Kofi", "Lena")
THINGS = ("apples", "books", "cards", "marbles", "pencils", "shells", "stamps", "tickets")

Problem: TypeAlias = tuple[str, list[str]]
"""A question and the expressions of its steps; `{}` in one stands for the step before."""


def _shopping(rng: random.Random, name: str, thing: str) -> Problem:
    count, price, paid = rng.randint(3, 19), rng.randint(2, 9), rng.randint(200, 400)
    text = f"{name} buys {count} {thing} at ${price} each and pays with ${paid}. How many dollars of change are due?"
    return text, [f"{count}*{price}", f"{paid}-{{}}"]


def _sharing(rng: random.Random, name: str, thing: str) -> Problem:
    friends, each, extra = rng.randint(3, 12), rng.randint(4, 30), rng.randint(5, 60)
    total = friends * each - extra
    if total <= 0:
        total, extra = friends * each, 0
    text = (
        f"{name} has {total} {thing} and finds {extra} more. {name} shares them all equally among {friends} friends. "
        f"How many {thing} does each friend get?"
    )
    return text, [f"{total}+{extra}", f"{{}}/{friends}"]


def _saving(rng: random.Random, name: str, thing: str) -> Problem:
    weekly, weeks, spent = rng.randint(11, 60), rng.randint(5, 20), rng.randint(10, 50)
    text = (
        f"{name} saves ${weekly} a week for {weeks} weeks and then spends ${spent} on {thing}. "
        "How many dollars are left?"
    )
    return text, [f"{weekly}*{weeks}", f"{{}}-{spent}"]


def _boxes(rng: random.Random, name: str, thing: str) -> Problem:
    shelves, boxes, inside, broken = rng.randint(2, 9), rng.randint(3, 12), rng.randint(6, 24), rng.randint(1, 30)
    text = (
        f"A shop has {shelves} shelves with {boxes} boxes each, and {inside} {thing} in every box. {name} removes "
        f"{broken} damaged ones. How many {thing} remain?"
    )
    return text, [f"{shelves}*{boxes}", f"{{}}*{inside}", f"{{}}-{broken}"]


def _travel(rng: random.Random, name: str, thing: str) -> Problem:
    first, hours, second, more = rng.randint(40, 90), rng.randint(2, 8), rng.randint(40, 90), rng.randint(2, 6)
    text = (
        f"{name} carries {thing} by van: {hours} hours at {first} km an hour, then {more} hours at {second}. "
        "How many kilometres is that?"
    )
    return text, [f"{first}*{hours}", f"{{}}+{second}*{more}"]


def _wages(rng: random.Random, name: str, thing: str) -> Problem:
    rate, hours, days = 2 * rng.randint(5, 15), rng.randint(4, 9), rng.randint(3, 20)
    text = (
        f"{name} sorts {thing} for ${rate} an hour, {hours} hours a day, and saves half of all the pay. "
        f"How many dollars are saved in {days} days?"
    )
    return text, [f"{rate}*{hours}", f"{{}}*{days}", "{}/2"]


_TEMPLATES: tuple[Callable[[random.Random, str, str], Problem], ...] = (
    *(_shopping, _sharing, _saving, _boxes, _travel, _wages),
)


def word_problems(count: int, seed: int = 0) -> list[dict[str, str]]:
    """`count` different problems as rows with `question` and `answer`; the same ones for the same seed."""
    rng = random.Random(seed)
    rows: dict[str, dict[str, str]] = {}
    while len(rows) < count:
        template = _TEMPLATES[len(rows) % len(_TEMPLATES)]
        question, steps = template(rng, rng.choice(NAMES), rng.choice(THINGS))
        rows[question] = {"question": question, "answer": _solution(steps)}
    return list(rows.values())


def _solution(steps: list[str]) -> str:
    lines, last = [], ""
    for step in steps:
        expression = step.format(last)
        last = str(calculate(expression))
        lines.append(f"{expression} = <<{expression}={last}>>{last}")
    return "\n".join([*lines, f"#### {last}"])
