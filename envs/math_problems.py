"""Generated problems whose answers are no plain numbers: (kind, problem, answer in LaTeX, Python that finds it)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import TypeAlias

COUNT = 300
Problem: TypeAlias = tuple[str, str, str]


def _fraction(rng: random.Random) -> Problem:
    a, c = rng.randint(1, 12), rng.randint(1, 12)
    b, d = rng.randint(3, 19), rng.randint(3, 19)
    code = f"from fractions import Fraction\nFraction({a}, {b}) + Fraction({c}, {d})"
    return f"What is $\\frac{{{a}}}{{{b}}} + \\frac{{{c}}}{{{d}}}$?", _latex(Fraction(a, b) + Fraction(c, d)), code


def _surd(rng: random.Random) -> Problem:
    outer, inner = rng.randint(2, 12), rng.choice((2, 3, 5, 6, 7, 10, 11, 13))
    square = outer * outer * inner
    code = f"n = {square}\n[(k, n // k**2) for k in range(1, n) if n % k**2 == 0][-1]"
    return f"Simplify $\\sqrt{{{square}}}$.", f"{outer}\\sqrt{{{inner}}}", code


def _roots(rng: random.Random) -> Problem:
    first, second = rng.sample([n for n in range(-12, 13) if n], 2)
    total, product = first + second, first * second
    text = f"Find all real $x$ with $x^2 {_signed(-total)}x {_signed(product)} = 0$."
    low, high = sorted((first, second))
    return text, f"\\{{{low}, {high}\\}}", f"[x for x in range(-20, 21) if x*x - ({total})*x + ({product}) == 0]"


def _point(rng: random.Random) -> Problem:
    ax, ay, bx, by = (rng.randint(-15, 15) for _ in range(4))
    x, y = Fraction(ax + bx, 2), Fraction(ay + by, 2)
    text = f"What is the midpoint of the segment from $({ax}, {ay})$ to $({bx}, {by})$?"
    return text, f"\\left({_latex(x)}, {_latex(y)}\\right)", f"(({ax} + {bx}) / 2, ({ay} + {by}) / 2)"


def _polynomial(rng: random.Random) -> Problem:
    a, b, c, d = (rng.choice([n for n in range(-9, 10) if n]) for _ in range(4))
    middle = a * d + b * c
    term = f" {_signed(middle)}x" if middle else ""
    text = f"Expand $({a}x {_signed(b)})({c}x {_signed(d)})$."
    return text, f"{a * c}x^2{term} {_signed(b * d)}", f"({a} * {c}, {a} * {d} + {b} * {c}, {b} * {d})"


_KINDS: dict[str, Callable[[random.Random], Problem]] = {
    "fraction": _fraction,
    "surd": _surd,
    "roots": _roots,
    "point": _point,
    "polynomial": _polynomial,
}


def math_problems(count: int = COUNT) -> Iterator[tuple[str, str, str, str]]:
    """`count` problems, the kinds in turn, no text twice; always the same ones."""
    rng = random.Random("MathTool-v0")
    kinds = list(_KINDS)
    seen: set[str] = set()
    while len(seen) < count:
        kind = kinds[len(seen) % len(kinds)]
        problem = _KINDS[kind](rng)
        if problem[0] not in seen:
            seen.add(problem[0])
            yield kind, *problem


def _latex(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    sign = "-" if value < 0 else ""
    return f"{sign}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


def _signed(number: int) -> str:
    return f"{'-' if number < 0 else '+'} {abs(number)}"
