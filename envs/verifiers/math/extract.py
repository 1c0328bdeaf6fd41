"""Where an answer commits: the text, and whether it is a bare value or prose in which a value has to be looked for.

Every search here is linear in the length of the answer, so that megabytes of text cost milliseconds.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Extract = Literal["auto", "strict", "bare"]
MAX_VALUE = 2_000
"""Characters of a bare value; a longer one is no answer that anyone compares."""
MAX_PROSE = 4_000
"""Characters at the end of a prose answer in which a value is looked for."""
MAX_WORDS = 120
"""Characters of an answer in words, such as "no real solution"."""

_BOXES = ("\\boxed", "\\fbox")
_SPACE = " \t\r\n"
_MOST_BOXES = 12
_MOST_TRIES = 64  # a text of nothing but boxes that never close must not cost its length squared
_NEAR, _FAR = 10, 70
_JOINT = re.compile(r"\b(?:and|or)\b|[,;]")
_PHRASE = re.compile(
    r"(?:final\s+answer|\banswers?)(?:\s+\w+){0,4}?\s*(?:\bis\b|\bare\b|\bbe\b|:|=)+\**:?\s*"
    r"|(?:^|\n)\s*\**A\s*:\**[ \t]*",
    re.IGNORECASE,
)
_FINAL = re.compile(r"final\s+answer\s+(?:is|are)\b\**:?\s*", re.IGNORECASE)
_STOP = re.compile(r"\n|\.(?=\s)|\.$|\s+I hope\b|<\|")
_MATH = re.compile(r"\$\$(.+?)\$\$|\$([^$]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_AND_MORE = re.compile(r"\s*(?:,?\s*and\b|,?\s*or\b|,)\s*", re.IGNORECASE)
_COMMAND = re.compile(r"\\(?:begin|end|text|mbox|textbf|textrm|textit|mathrm|operatorname)\s*\{[^{}]*\}|\\[a-zA-Z]+")
_BRACKET = re.compile(r"\[([^\[\],;]{1,80})\][.\s]*$")
_WORD = re.compile(r"[^\W\d_]{2,}")
_SIGN = re.compile(r"[\d$\\=<>^]")
_TALK = re.compile(r"\b(?:is|are|the|we|so|equals?|therefore|thus|hence|answer)\b", re.IGNORECASE)
_NO_PROSE = re.compile(
    r"(?:and|or|pi|sqrt|sin|cos|tan|cot|sec|csc|log|ln|exp|inf|infinity|oo|percent|mod|gcd|lcm|max|min|abs|[a-z]{2})\b",
    re.IGNORECASE,
)


class Value(NamedTuple):
    """What an answer commits to. `prose`: a value has to be looked for in it."""

    text: str
    prose: bool = False


def extract(answer: str, mode: Extract) -> Value | None:
    """The value of an answer, None where it commits to none (or to one that is too long)."""
    if mode == "bare":
        return _value(answer)
    if mode == "strict":
        boxes = _boxes(answer, 1)
        return _value(boxes[0] if boxes else _after_hashes(answer))
    return _auto(answer)


def _auto(answer: str) -> Value | None:
    boxes = _boxes(answer, _MOST_BOXES)
    if boxes:
        # "the final answer is ..." after the last box is more final than the box
        said = _last(_FINAL, answer[max(answer.rfind(box) for box in _BOXES) :][-MAX_PROSE:])
        return _sentence(said) or _value(",".join(boxes)) if said else _value(",".join(boxes))
    if (start := max(answer.rfind(box) for box in _BOXES)) >= 0:
        return _value(answer[start:].partition("{")[2].partition("\n")[0].rstrip(" .$"))
    if "####" in answer:
        return _value(_after_hashes(answer))
    tail = answer[-MAX_PROSE:]
    if said := _last(_PHRASE, tail):
        return _sentence(said) or Value(tail, prose=True)
    whole = answer.strip()
    if "\\[" not in tail and (found := _BRACKET.search(tail)):
        return _value(found[1])
    return _whole(whole if len(whole) <= MAX_VALUE else tail)


def _whole(text: str) -> Value | None:
    """A text without any marker: a value if all of it is one, else prose."""
    if not text:
        return None
    found = _MATH.fullmatch(text)
    if found and "$" not in (inside := _inside(found)):
        return _value(inside)
    if len(text) <= MAX_WORDS and not _SIGN.search(text):
        return _value(text)
    if (
        "$" in text.replace("\\$", "")
        or "\\(" in text
        or "\\[" in text
        or len(text) > MAX_VALUE
        or reads_as_prose(text)
    ):
        return Value(text[-MAX_PROSE:], prose=True) if _SIGN.search(text) else None
    return _value(text)


def _sentence(said: str) -> Value | None:
    """What follows a final-answer phrase: its formulas where it starts with one, else the rest of its sentence."""
    said = said.lstrip(" \t\r\n*:=")
    if found := _MATH.match(said):
        parts = [_inside(found)]
        while (more := _AND_MORE.match(said, found.end())) and (found := _MATH.match(said, more.end())):
            parts.append(_inside(found))
        return _value(",".join(parts))
    stop = _STOP.search(said)
    sentence = said[: stop.start()] if stop else said
    if not sentence.strip():
        return None
    return _whole(sentence.strip().strip("*"))


def reads_as_prose(text: str) -> bool:
    """Whether there is a sentence around the value: a verb or so, or two words that no formula has."""
    text = _COMMAND.sub(" ", text)
    return _TALK.search(text) is not None or sum(not _NO_PROSE.fullmatch(word) for word in _WORD.findall(text)) > 1


def _value(text: str) -> Value | None:
    text = text.strip()
    return Value(text) if text and len(text) <= MAX_VALUE else None


def _after_hashes(answer: str) -> str:
    _, marker, after = answer.rpartition("####")
    return after.strip().partition("\n")[0] if marker else ""


def _last(pattern: re.Pattern[str], text: str) -> str:
    """What follows the last match; empty where there is none."""
    end = -1
    for found in pattern.finditer(text):
        end = found.end()
    return text[end:] if end >= 0 else ""


def _inside(found: re.Match[str]) -> str:
    return next(group for group in found.groups() if group is not None)


def _boxes(text: str, most: int) -> list[str]:
    """The contents of the last complete box, and of up to `most` before it that belong to the same answer."""
    found: list[str] = []
    limit = later = len(text)
    for _ in range(_MOST_TRIES):
        if len(found) == most:
            break
        start = max(text.rfind(box, 0, limit) for box in _BOXES)
        if start < 0:
            break
        limit = start
        opening = text.find("{", start, start + 12)
        end = _closing(text, opening, later) if opening >= 0 else -1
        if end < 0:
            if found:
                break
            continue
        content = text[opening + 1 : end]
        if found and not _joined(text[end + 1 : later], content, found[0]):
            break
        if not found or content != found[0]:
            found.insert(0, content)
        later = start
    return found


def _joined(between: str, content: str, following: str) -> bool:
    """Boxes that stand close, or have a comma, `and` or `or` between them, are one answer."""
    if len(between) < _NEAR:
        return True
    return content != following and len(between) < _FAR and _JOINT.search(between) is not None


_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def _closing(text: str, opening: int, end: int) -> int:
    """Where the brace at `opening` closes, -1 if not before `end` or not within what a value may have."""
    depth = 0
    for found in _BRACE.finditer(text, opening, min(end, opening + 2 * MAX_VALUE)):
        if found[0] == "{":
            depth += 1
        elif found[0] == "}":
            depth -= 1
            if depth == 0:
                return found.start()
    return -1
