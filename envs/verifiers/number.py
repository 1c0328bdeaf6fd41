"""Exact comparison of numeric answers: `#### 1,200`, `\\boxed{1200}` and a last line `$1200.` are one number."""

from __future__ import annotations

import re
from fractions import Fraction

MAX_DIGITS = 200
_NUMBER = re.compile(r"([-+]?)\$?((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)(?:/([0-9]+))?")
_BOX = "\\boxed{"


def read_number(text: str) -> Fraction | None:
    """The exact value of a text that is one number and nothing else; `$`, `,` and a final period are tolerated."""
    text = text.strip().strip("$").strip().removesuffix(".")
    match = _NUMBER.fullmatch(text) if len(text) <= MAX_DIGITS else None
    if match is None:
        return None
    sign, digits, divisor = match.groups()
    value = Fraction(digits.replace(",", "")) * (-1 if sign == "-" else 1)
    if divisor is None:
        return value
    return value / int(divisor) if int(divisor) else None


def final_number(answer: str) -> Fraction | None:
    """The number an answer commits to: after its last `####`, else in its last box, else its whole last line."""
    _, marker, after = answer.rpartition("####")
    if marker:
        lines = after.strip().splitlines()
        return read_number(lines[0]) if lines else None
    _, marker, after = answer.rpartition(_BOX)
    if marker:
        return read_number(after.partition("}")[0])
    lines = answer.strip().splitlines()
    return read_number(lines[-1]) if lines else None
