"""The numbers and other checkable facts of a text: `$1,200.50`, `1.2k`, `15%`, `12kg`, `HAT-123`, `2024-05-15`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

MAX_CHARS = 50_000
"""Of a text; what lies beyond is not read."""
MAX_FACTS = 5_000
"""Of a text, likewise."""
_SCALES = {"k": 10**3, "K": 10**3, "M": 10**6, "bn": 10**9, "B": 10**9}
_WORDS = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_UNITS = "kg|g|mg|km|m|cm|mm|s|ms|h|hr|hrs|min|mins|GB|MB|KB|TB|lb|lbs|oz|st|nd|rd|th|x"
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = (
    "(?i:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    "|nov(?:ember)?|dec(?:ember)?)"
)
_TOKEN = re.compile(
    rf"""
    (?P<link>https?://[^\s<>"')\]]{{1,500}}|(?<![\w.+-])[\w.+-]{{1,64}}@[\w-]{{1,64}}\.[\w.-]{{0,64}}\w)
    |(?P<date>(?<!\d)(?P<year>\d{{4}})-(?P<month>\d\d)-(?P<day>\d\d)(?!\d))
    |(?P<named>\b(?:(?P<month1>{_MONTH})\s+(?P<day1>\d{{1,2}})(?:st|nd|rd|th)?
      |(?P<day2>\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?(?P<month2>{_MONTH}))\b(?!:)(?:,?\s+(?P<year1>\d{{4}})\b)?)
    |(?P<time>(?<![\d:])(?P<hour>\d{{1,2}}):(?P<minute>\d\d)(?P<second>:\d\d)?(?![\d:])(?:\s?(?P<half>[AaPp])\.?[Mm]\b)?)
    |(?P<version>\bv?\d+(?:\.\d+){{2,}}\b)
    |(?<![\w.])(?P<sign>(?<![\w)\]}}])[-+\u2212])?(?P<currency>[$€£])?
      (?P<digits>\d{{1,3}}(?:,\d{{3}})+|\d{{1,40}})(?P<decimals>\.\d{{1,40}})?(?P<exponent>[eE][-+]?\d{{1,2}})?
      (?:(?P<scale>bn|[kKMB])|(?P<unit>{_UNITS})|\s?(?P<percent>%)|\s(?P<word>{"|".join(_WORDS)}))?(?![\w])(?!\.\d)
    |(?P<code>(?<![\w-])\#?(?=[\w-]{{0,64}}\d)\w{{1,64}}(?:-\w{{1,64}}){{0,8}})
    """,
    re.VERBOSE,
)
# "1. Pears", "2) plums", "Step 3:" number the lines of an answer and say nothing
_MARKER = re.compile(
    r"^[ \t>*-]*(?:(?:\#+ *)?(?:step|part|option) +)?\d{1,2}(?:[.):](?=\s|$))", re.MULTILINE | re.IGNORECASE
)


_DATE = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number as it was written. `step` is the worth of its last digit, by which a rounded one is known: 1.2k has 100.

    `signed`: a sign was written. `unit`: `$`, `%` or letters that were attached.
    """

    value: Fraction
    step: Fraction
    text: str
    start: int
    end: int
    unit: str = ""
    signed: bool = False

    @property
    def forms(self) -> tuple[Fraction, ...]:
        """What it may be written as: 15% is 15 and 0.15; 1.5 k is only 1500."""
        return (self.value, self.value / 100) if self.unit == "%" else (self.value,)


@dataclass(frozen=True, slots=True)
class Code:
    """A token that is to be found as it is: an order's number, date, time, version, address.

    `key` is the same for all its writings: `W23` of #w23, `2024-05-20` of May 20th, 2024, `22:00` of 10:00 pm.
    """

    text: str
    start: int
    key: str

    @property
    def keys(self) -> tuple[str, ...]:
        """What it may be called where it is a source: a date also without its year, card_7504069 by its number."""
        if _DATE.fullmatch(self.key):
            return (self.key, self.key[5:])
        return (self.key, *(part for part in re.split(r"[_-]", self.key) if len(part) > 3 and part != self.key))

    @property
    def is_date(self) -> bool:
        return bool(_DATE.fullmatch(self.key))


def read_facts(text: str, *, piece: bool = False) -> tuple[list[Quantity], list[Code]]:
    """The numbers and codes of a text, in order. Numbers of list items and steps are left out, but for a `piece` of a
    line, in which "37." is no list's."""
    quantities: list[Quantity] = []
    codes: list[Code] = []
    text = text[:MAX_CHARS].replace("{,}", ",")
    if not piece:
        text = _MARKER.sub(lambda found: " " * len(found.group()), text)
    for fact in islice(_facts(text), MAX_FACTS):
        if isinstance(fact, Quantity):
            quantities.append(fact)
        else:
            codes.append(fact)
    return quantities, codes


def _facts(text: str) -> Iterator[Quantity | Code]:
    for match in _TOKEN.finditer(text):
        yield _quantity(match) if match["digits"] else Code(match.group(), match.start(), _key(match))


def _key(match: re.Match[str]) -> str:
    if match["date"]:
        return match["date"]
    if match["named"]:
        month = _MONTHS.index((match["month1"] or match["month2"])[:3].casefold()) + 1
        day = f"{month:02}-{int(match['day1'] or match['day2']):02}"
        return f"{match['year1']}-{day}" if match["year1"] else day
    if match["time"]:
        hour = int(match["hour"])
        if match["half"]:
            hour = hour % 12 + (12 if match["half"] in "Pp" else 0)
        seconds = match["second"] or ""
        return f"{hour:02}:{match['minute']}{'' if seconds == ':00' else seconds}"
    return match.group().casefold().lstrip("#")


def _quantity(match: re.Match[str]) -> Quantity:
    decimals = match["decimals"] or ""
    step = Fraction(_SCALES.get(match["scale"], 1) * _WORDS.get(match["word"], 1), 10 ** max(0, len(decimals) - 1))
    if match["exponent"]:
        step *= Fraction(10) ** int(match["exponent"][1:])
    value = int(match["digits"].replace(",", "") + decimals[1:]) * step
    unit = match["currency"] or match["percent"] or match["unit"] or ""
    negative = match["sign"] in ("-", "\u2212")
    return Quantity(
        -value if negative else value, step, match.group(), match.start(), match.end(), unit, bool(match["sign"])
    )


def agrees(claim: Quantity, seen: Quantity) -> bool:
    """Whether a claimed number is one that was seen: equal; rounded from one that was written more finely, by at most
    5%; or its size where the claim has no sign (a loss of 5 for -5)."""
    for a in claim.forms:
        for b in seen.forms:
            b = abs(b) if not claim.signed else b
            if a == b:
                return True
            if seen.step < claim.step and abs(a - b) <= claim.step / 2 and abs(a - b) * 20 <= abs(b):
                return True
    return False
