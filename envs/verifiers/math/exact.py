"""Plain numbers are compared exactly and at once, without sympy: integers, decimals, fractions, mixed numbers."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

MAX_LENGTH = 120
"""Characters; what is longer is not a plain number."""
MAX_LIST = 2_000
SEVERAL = 8
"""Items from which on a list that differs is not looked at again: sympy takes 0.01 s for each."""

_BRACES = re.compile(r"\\([{}])")
_DROPPED = re.compile(r"\\!\s*|\\[,;: ]|\\(?:left|right|displaystyle)(?![a-zA-Z])|[~\u00a0\u202f]")
_DEGREES = re.compile(r"\s*(?:\^\s*\{?\s*\\circ\s*\}?|\u00b0|\\degree)$")
_PERCENT = re.compile(r"\s*(?:\\?%|\\text\s*\{\s*%?\s*(?:percent)?\s*\}|percent|per cent)$", re.IGNORECASE)
_PLAIN = re.compile(
    r"(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,3}(?: [0-9]{3})+|[0-9]+)?(?P<decimals>\.[0-9]*)?"
    r"(?:\s*/\s*(?P<divisor>[0-9]+(?:\.[0-9]+)?)|[eE](?P<exponent>[-+]?[0-9]{1,3})"
    r"|\s*(?:\\times|\\cdot|\*|\u00d7)\s*10\s*\^\s*(?:\{\s*(?P<power>[-+]?[0-9]{1,3})\s*\}|(?P<digit>[0-9])))?"
)
_REPEATING = re.compile(r"(?P<start>[0-9]*\.[0-9]*)\\(?:overline|bar)\s*(?:\{(?P<period>[0-9]+)\}|(?P<digit>[0-9]))")
_BASED = re.compile(r"(?P<digits>[0-9A-Za-z]+)(?:_\s*\{?\s*(?:\\text\s*\{\s*)?(?P<base>[0-9]{1,2})[\s}]*)?")
_FRACTION = re.compile(
    r"(?P<whole>[0-9]+)?\s*\\[dtc]?frac\s*"
    r"(?:\{\s*(?P<minus>-?)\s*(?P<top>[0-9]+(?:\.[0-9]+)?)\s*\}|(?P<digit>[0-9]))\s*"
    r"(?:\{\s*(?P<bottom>[0-9]+(?:\.[0-9]+)?)\s*\}|(?P<under>[0-9]))"
)
_SIMPLE_FRACTION = re.compile(r"(-?)\\[dt]?frac\{(-?[0-9]{1,18})\}\{([0-9]{1,18})\}")
_MIXED = re.compile(r"(?P<whole>[0-9]+)(?:\s+|\s*\+\s*|\s+and\s+)(?P<top>[0-9]+)\s*/\s*(?P<bottom>[0-9]+)")
_SHORT = Fraction(5, 10**7)
_RELATIVE = Fraction(1, 10**5)


class Number(NamedTuple):
    """An exact value. `rounded`: it was written with a decimal point. `percent`: with a percent sign after it."""

    value: Fraction
    rounded: bool = False
    percent: bool = False


@lru_cache(maxsize=4096)
def read(text: str) -> Number | None:
    """The value of a text that is one plain number, None for anything else.

    Tolerated: `$` around or before it, `\\$`, thousands separators (`,` `{,}` ` `), a final period, degrees, percent.
    """
    if len(text) > MAX_LENGTH:
        return None
    text = text.strip()
    if text.isdecimal() and text.isascii():
        return Number(Fraction(int(text)))
    # as fractions are mostly written: the same value as below, for half of the time
    if (found := _SIMPLE_FRACTION.fullmatch(text)) and not (found[1] and found[2].startswith("-")) and int(found[3]):
        return Number(Fraction(int(found[1] + found[2]), int(found[3])))
    text = _DROPPED.sub("", text.replace("{,}", ",").replace("\u2212", "-").strip("$ ")).strip()
    text = text.removesuffix(".") if not text.endswith("..") else text
    percent = _PERCENT.search(text)
    text = text[: percent.start()] if percent else _DEGREES.sub("", text)
    sign, text = _sign(text)
    if sign == 0 or not text:
        return None
    value = _value(text)
    return None if value is None else Number(value[0] * sign, value[1], percent is not None)


class Numbers(NamedTuple):
    """Several numbers and the brackets around them."""

    brackets: str
    items: tuple[Number, ...]


@lru_cache(maxsize=4096)
def read_several(text: str) -> Numbers | None:
    """The numbers of a list, set, tuple or interval of plain numbers, None for anything else."""
    if "," not in text or len(text) > MAX_LIST:
        return None
    text = _BRACES.sub(r"\1", _DROPPED.sub("", text.strip().strip("$"))).strip().removesuffix(".")
    brackets = ""
    if text[:1] in "({[" and text[-1:] in ")}]":
        brackets, text = text[0] + text[-1], text[1:-1]
    items = [read(item) for item in text.split(",")]
    numbers = tuple(item for item in items if item is not None)
    if len(numbers) < len(items):
        return None
    return Numbers(brackets, numbers)


def same_numbers(gold: Numbers, answer: Numbers) -> bool | None:
    """Whether they are the same, None where that takes a closer look. Sets and bare lists have no order."""
    if gold.brackets != answer.brackets:
        return None
    a, b = gold.items, answer.items
    if gold.brackets in ("", "{}"):
        a, b = tuple(sorted(a)), tuple(sorted(b))
    if len(a) == len(b) and all(same(one, other) for one, other in zip(a, b, strict=True)):
        return True
    return False if len(a) > SEVERAL else None


def _sign(text: str) -> tuple[int, str]:
    """The sign before or after a currency sign, and the rest; 0 for two signs."""
    sign = 1
    seen = False
    for _ in range(4):
        if text[:1] in ("-", "+"):
            if seen:
                return 0, text
            seen, sign = True, -1 if text[0] == "-" else 1
            text = text[1:].lstrip()
        elif text.startswith("\\$"):
            text = text[2:].lstrip()
        elif text.startswith("$"):
            text = text[1:].lstrip()
    return sign, text


def _value(text: str) -> tuple[Fraction, bool] | None:
    if found := _FRACTION.fullmatch(text):
        over = Fraction(found["bottom"] or found["under"])
        if not over or (found["whole"] and found["minus"]):
            return None
        top = Fraction(found["top"] or found["digit"]) * (-1 if found["minus"] else 1)
        return Fraction(found["whole"] or 0) + top / over, False
    if found := _MIXED.fullmatch(text):
        over = Fraction(found["bottom"])
        return (Fraction(found["whole"]) + Fraction(found["top"]) / over, False) if over else None
    if found := _REPEATING.fullmatch(text):
        return _repeating(found["start"], found["period"] or found["digit"]), False
    found = _PLAIN.fullmatch(text)
    if not found or not (found["whole"] or found["decimals"]) or (found["decimals"] == "." and not found["whole"]):
        return None
    whole, decimals, divisor = found["whole"] or "0", found["decimals"] or "", found["divisor"]
    if whole.startswith(("0,", "0 ")):
        if decimals or whole.count(",") != 1:  # 0,111 is a decimal comma; 0,111,222 is nothing
            return None
        whole, decimals = "0", "." + whole[2:]
    value = Fraction(whole.replace(",", "").replace(" ", "") + decimals)
    if divisor is None:
        ten = found["exponent"] or found["power"] or found["digit"]
        return value * Fraction(10) ** int(ten or 0), len(decimals) > 1
    return (value / Fraction(divisor), False) if Fraction(divisor) else None


def _repeating(start: str, period: str) -> Fraction:
    """0.1 with 6 repeating is 1/6."""
    shift = 10 ** len(start.partition(".")[2])
    return Fraction(start + "0") + Fraction(int(period), (10 ** len(period) - 1) * shift)


def same_in_base(gold: str, answer: str) -> bool | None:
    """Whether a number with its base, 2516_8, has the same digits and base; None for a gold that is no such number.

    The base may be left out, as a unit may.
    """
    right = _BASED.fullmatch(gold.strip("$ ")) if "_" in gold else None
    if right is None or right["base"] is None or not right["digits"][0].isdigit():
        return None
    said = _BASED.fullmatch(_DROPPED.sub("", answer).strip("$ ."))
    return said is not None and said["digits"] == right["digits"] and said["base"] in (None, right["base"])


def same(gold: Number, answer: Number) -> bool:
    """Equal, or one of them a decimal that was rounded to six places or more.

    A percent sign may be left out or written out: 10% is 10, and it is 0.1.
    """
    if gold.percent == answer.percent:
        return _close(gold.value, answer.value, gold.rounded or answer.rounded)
    rounded = gold.rounded or answer.rounded
    part, whole = (gold.value, answer.value) if gold.percent else (answer.value, gold.value)
    return _close(part, whole, rounded) or _close(part / 100, whole, rounded)


def _close(a: Fraction, b: Fraction, rounded: bool) -> bool:
    if a == b:
        return True
    return rounded and (gap := abs(a - b)) <= _SHORT and gap <= _RELATIVE * abs(a)
