"""Numbers within a tolerance: measurements, estimates, money. Without one, equal means equal."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from fractions import Fraction

from agentgym.envs.verifiers.math import exact
from agentgym.envs.verifiers.math.extract import Extract, extract
from agentgym.types import Outcome

_NUMBER = re.compile(
    r"[-+\u2212]?\$?(?:[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?(?![0-9])"
)
_POWER = re.compile(r"(?<=[a-zA-Z}])\s*\^\s*\{?\s*-?[0-9]\s*\}?")  # of a unit
_UNIT = re.compile(r"[\s\\]*[^\W\d_][^\d=]{0,40}|\s*")


def verify_numeric(
    gold: object,
    answer: object,
    *,
    relative: float = 0.0,
    absolute: float = 0.0,
    extract: Extract = "strict",
) -> Outcome:
    """Whether the answer's number is within `max(absolute, relative * |gold|)` of `gold`'s; true when correct.

    Args:
        gold: a number, or the text of one.
        answer: what the agent wrote; the number that stands where `extract` says (see `verify_math`). A unit after the
            number is let pass; two numbers are none.
        relative, absolute: the tolerances, both finite and not negative.

    Returns `correct`, `incorrect`, `unparsable` (no number there), or `error` for a gold that is no finite number.
    Never blocks: nothing is computed but differences. Raises `ValueError` for tolerances that are none.
    """
    for name, value in (("relative", relative), ("absolute", absolute)):
        if not 0 <= value < math.inf:
            raise ValueError(f"verify_numeric: {name} = {value!r}: must be a finite number, 0 or more")
    meant = _gold(gold)
    if meant is None:
        return Outcome.error
    said = _said(answer, extract)
    if said is None:
        return Outcome.unparsable
    allowed = max(Fraction(absolute), Fraction(relative) * abs(meant))
    return Outcome.correct if abs(said - meant) <= allowed else Outcome.incorrect


def _gold(gold: object) -> Fraction | None:
    if isinstance(gold, (int, float, Fraction)) and not isinstance(gold, bool):
        return Fraction(gold) if math.isfinite(gold) else None
    return _said(gold, "auto")


def _said(answer: object, mode: Extract) -> Fraction | None:
    if isinstance(answer, (int, float)) and not isinstance(answer, bool):
        answer = repr(answer)
    value = extract(answer, mode) if isinstance(answer, str) else None
    if value is None:
        return None
    if not value.prose and (number := exact.read(value.text)) is not None:
        return number.value / 100 if number.percent else number.value
    text = _POWER.sub("", value.text)
    found = list(_numbers(text))
    if value.prose:
        return found[-1][0] if found else None
    # a number with a unit: nothing before it but a sign of currency or a name, no second number after it
    if len(found) != 1 or not _UNIT.fullmatch(text[found[0][1] :].strip(" .$")):
        return None
    return found[0][0]


def _numbers(text: str) -> Iterator[tuple[Fraction, int]]:
    """(value, where it ends) of each number in a text."""
    for match in _NUMBER.finditer(text):
        digits = match[0].replace(",", "").replace("$", "").replace("\u2212", "-")
        if len(digits) <= exact.MAX_LENGTH:
            yield Fraction(digits), match.end()
