"""What is said of what: "the price of a pear is 37", a tool's `lookup(item=pear)` -> 37, and where two such differ.

Read by patterns, for precision: a sentence that supposes, denies, asks or compares states nothing here, and two
statements are held against each other only where they name the same thing by the same words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from agentgym.envs.verifiers.quantities import Quantity, agrees, read_facts
from agentgym.envs.verifiers.sources import Sources, evaluate
from agentgym.types import Message

_HEDGES = re.compile(
    r"\?|\b(?:if|suppose|assum\w+|whether|would|could|might|maybe|perhaps|not|never|no|isn't|aren't|wasn't|doesn't|"
    r"more than|less than|fewer than|at least|at most|up to|over|under|above|below|between|about|around|roughly|"
    r"approximately|nearly|almost|was|were|previously|used to|either|or)\b",
    re.IGNORECASE,
)
_CORRECTION = re.compile(
    r"\b(?:actually|correction|corrected|wait|sorry|mistake|instead|rather|updated?|changed|now|new)\b", re.IGNORECASE
)
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n+")
_CLAUSE = re.compile(
    r"[,()]|(?<!\d):|:(?!\d)|\b(?:and|but|so|then|while|whereas|because|since|which|where|that|with)\b", re.IGNORECASE
)
_ROW = re.compile(r"^[ \t]*(?:[-*\u2022]|\d{1,2}[.)])[ \t][^\n:]{0,60}:.*$|^[ \t]{2,}[^\n:]{0,60}:.*$", re.MULTILINE)
_VERBS = {
    **dict.fromkeys(("is", "are", "equals", "=", ":", "has", "have", "totals", "to", "at"), ""),
    **dict.fromkeys(("costs", "cost"), "price"),
    **dict.fromkeys(("weighs", "weigh"), "weight"),
    **dict.fromkeys(("takes", "take", "lasts", "last"), "duration"),
    **dict.fromkeys(("scores", "scored"), "score"),
}
_CLAIM = re.compile(
    r"(?P<left>[^=:?!;]{1,120}?)\s*"
    r"(?P<verb>=|:|\b(?:is|are|equals|has|have|totals|comes to|costs?|weighs?|takes?|lasts?|scored?s?)\b)"
    r"\s*(?:exactly |now |only |just |equal to )*(?=[-+$€£\u2212]?\d)",
    re.IGNORECASE,
)
_ATTRIBUTES = {
    **dict.fromkeys(("price", "cost", "costs", "prices", "fare"), "price"),
    **dict.fromkeys(("duration", "time", "length"), "duration"),
    **{
        word: word
        for word in (
            *("weight", "distance", "population", "height", "age", "score", "size", "balance", "temperature", "fee"),
            *("tax", "rate", "deadline", "stock", "quantity", "count", "number", "total", "width", "area", "volume"),
        )
    },
}
_FILLER = frozenset(
    (
        *("a", "an", "the", "of", "for", "in", "on", "at", "by", "to", "from", "with", "per", "each", "every", "one"),
        *("this", "that", "these", "those", "it", "its", "their", "his", "her", "my", "your", "our", "there", "here"),
        *("he", "she", "they", "we", "i", "you", "is", "are", "be", "been", "has", "have", "had", "do", "does"),
        *("exact", "current", "also", "still", "again", "thus", "hence", "therefore", "however", "first", "second"),
        *("next", "finally", "item", "product", "value", "what", "get", "got", "know", "see", "found", "find", "says"),
        *("say", "said", "shows", "show", "tool", "result", "as", "so", "only", "just", "very", "all", "both", "now"),
        *("note", "please", "later"),
    )
)
_PRONOUNS = frozenset(["it", "this", "that", "he", "she", "they", "there", "these", "those"])
_WORD = re.compile(r"[^\W\d_]+(?:'[a-z]+)?|\#?\w*\d\w*", re.IGNORECASE)
_RIGHT = re.compile(r"\s{0,9}[-+]?\$?[\d(][\d\s.,()+*/^%-]{0,200}")
_ARITHMETIC = frozenset("0123456789 .,()+*/^%-")
MAX_EQUATIONS = 200
"""Of a message."""


@dataclass(frozen=True, slots=True)
class Statement:
    """`subject` are its words without order, `attribute` what of it is told ("" where that is not said)."""

    subject: frozenset[str]
    attribute: str
    quantity: Quantity
    unit: str
    text: str
    corrects: bool = False


@dataclass(frozen=True, slots=True)
class Contradiction:
    """`said` in the message at `index`, against what was said or shown `before`."""

    index: int
    said: str
    before: str

    def __str__(self) -> str:
        return f"message {self.index}: {self.said!r} against {self.before!r}"


def find_contradictions(messages: Sequence[Message]) -> list[Contradiction]:
    """Where the agent's own words differ from its earlier ones, from a tool's result, or from arithmetic.

    A value that a later tool result brought is news and no contradiction, nor is a sentence that corrects itself.
    """
    found: list[Contradiction] = []
    own: list[tuple[int, Statement]] = []
    told: list[Statement] = []
    asked: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for index, message in enumerate(messages):
        if message.role == "assistant":
            asked.update((call.id, (call.name, call.arguments)) for call in message.tool_calls)
            found += [Contradiction(index, said, truth) for said, truth in _wrong_sums(message.text)]
            sources = Sources.of(messages[:index])
            for statement in read_statements(message.text):
                against = _own_clash(statement, own, messages, index) or _tool_clash(statement, told, sources)
                if against is not None:
                    found.append(Contradiction(index, statement.text, against.text))
                own.append((index, statement))
        elif message.role == "tool":
            name, arguments = asked.get(message.tool_call_id or "", ("", {}))
            told += _tool_statements(name, arguments, message.text)
    return found


def read_statements(text: str) -> Iterator[Statement]:
    """The statements of a text that give a number."""
    for sentence in _SENTENCE.split(_rows_out(text)):
        sentence = sentence.replace("*", "") if "**" in sentence else sentence
        if len(sentence) > 1000 or _HEDGES.search(sentence):
            continue
        clauses, opening = _clauses(sentence)
        for clause in clauses:
            if (statement := _statement(clause, opening, sentence)) is not None:
                yield statement


def _rows_out(text: str) -> str:
    """A text without the bulleted `Price: 40` lines of a listing: they speak of what stands above them."""
    return _ROW.sub("", text)


def _clauses(sentence: str) -> tuple[list[str], str]:
    """The clauses, and words that open the sentence and hold for all of it ("On Monday, ...")."""
    # the colon of "pear: 37" and the comma of 1,200 part nothing
    parts = _CLAUSE.split(re.sub(r"(?<=[^\W\d]):(?=\s*[-$€£]?\d)", " = ", re.sub(r"(?<=\d),(?=\d{3})", "", sentence)))
    first = parts[0].split()
    opens = (
        len(parts) > 1 and bool(first) and first[0].casefold() in ("on", "in", "at", "for", "after", "before", "from")
    )
    return (parts[1:], parts[0]) if opens and not re.search(r"\d\s*$", parts[0]) else (parts, "")


def _statement(clause: str, opening: str, sentence: str) -> Statement | None:
    claim = _CLAIM.search(clause)
    if claim is None:
        return None
    quantities, _ = read_facts(clause[claim.end() :], piece=True)
    if not quantities or quantities[0].start > 0:
        return None
    quantity = quantities[0]
    after = clause[claim.end() + quantity.end :]
    if re.match(r"\s*[-+*/=^\u00d7\u00f7]", after):  # an expression, not yet a value
        return None
    verb = claim["verb"].casefold().split()[-1]
    left = _words(claim["left"])
    if not left or left[-1] in _PRONOUNS:
        return None
    following = _WORD.match(after.lstrip()) if after[:1] == " " else None
    rest = _words(after)
    unit = quantity.unit
    if not unit and following and following.group().casefold() not in _FILLER:
        unit, rest = _singular(following.group().casefold()), rest[1:]
    names = [_ATTRIBUTES.get(word) for word in left]
    attribute = next((name for name in names if name), _VERBS.get(verb, ""))
    words = [word for word in (*left, *rest, *_words(opening)) if word not in _FILLER and word not in _ATTRIBUTES]
    subject = frozenset(map(_singular, words))
    if not subject and not attribute:
        return None
    return Statement(subject, attribute, quantity, unit, sentence.strip(), bool(_CORRECTION.search(sentence)))


def _tool_statements(name: str, arguments: Mapping[str, Any], text: str) -> Iterator[Statement]:
    """What a result states: a bare number, of what the call's arguments name; or the fields of JSON."""
    shown = f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())}) -> {text[:100]}"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict | list):
        yield from _fields(value, shown)
        return
    quantities, codes = read_facts(text)
    words = {_singular(word) for given in arguments.values() if isinstance(given, str) for word in _words(given)}
    words = {word for word in words if word not in _FILLER}
    if len(quantities) == 1 and not codes and words and len(text) <= 40:
        hint = next((_ATTRIBUTES[word] for word in re.split(r"[\W_]+", name.casefold()) if word in _ATTRIBUTES), "")
        yield Statement(frozenset(words), hint, quantities[0], quantities[0].unit, shown)


def _fields(value: Any, shown: str, depth: int = 0) -> Iterator[Statement]:
    if depth > 6:
        return
    if isinstance(value, list):
        for item in value[:200]:
            yield from _fields(item, shown, depth + 1)
    elif isinstance(value, dict):
        names = [
            str(value[key])
            for key in ("name", "item", "title", "id", "city", "product")
            if isinstance(value.get(key), str)
        ]
        for key, item in value.items():
            if isinstance(item, int | float) and not isinstance(item, bool):
                quantities, _ = read_facts(str(item))
                words = [w for w in re.split(r"[\W_]+", str(key).casefold()) if w]
                hint = next((_ATTRIBUTES[word] for word in words if word in _ATTRIBUTES), "")
                subject = _words(names[0]) if names else [word for word in words if word not in _ATTRIBUTES]
                if quantities and subject and (hint or not names):
                    yield Statement(
                        frozenset(map(_singular, subject)), hint, quantities[0], "", f"{key}: {item} in {shown}"
                    )
            else:
                yield from _fields(item, shown, depth + 1)


def _own_clash(
    statement: Statement, own: Sequence[tuple[int, Statement]], messages: Sequence[Message], index: int
) -> Statement | None:
    if statement.corrects:
        return None
    for when, earlier in reversed(own):
        same = earlier.subject == statement.subject and earlier.attribute == statement.attribute
        if not same or not _units_fit(statement, earlier):
            continue
        if _same_value(statement, earlier):
            return None
        between = Sources.of(message for message in messages[when + 1 : index] if message.role == "tool")
        return None if between.has_quantity(statement.quantity) else earlier
    return None


def _tool_clash(statement: Statement, told: Sequence[Statement], sources: Sources) -> Statement | None:
    about = [s for s in told if s.subject == statement.subject and _units_fit(statement, s)]
    about = [s for s in about if s.attribute in ("", statement.attribute)]
    if not about or any(_same_value(statement, s) for s in about):
        return None
    if all(s.attribute != statement.attribute for s in about) and sources.has_quantity(statement.quantity):
        return None  # the tool did not say what its number is, and this one was seen elsewhere
    return about[-1]


def _same_value(one: Statement, other: Statement) -> bool:
    return agrees(one.quantity, other.quantity) or agrees(other.quantity, one.quantity)


def _units_fit(one: Statement, other: Statement) -> bool:
    return not one.unit or not other.unit or one.unit == other.unit


def _wrong_sums(text: str) -> Iterator[tuple[str, str]]:
    """(what stands there, what is right) of `37*4 = 150`."""
    parts = text.replace("\u00d7", "*").replace("\u00f7", "/").split("=", MAX_EQUATIONS)
    for i, (before, after) in enumerate(pairwise(parts)):
        left, right = _sum_before(before), _RIGHT.match(after)
        chained = i > 0 and before.strip(" .,") == left
        if (
            right is None
            or not (chained or re.search(r"\d\s*[*/+^-]", left))
            or re.search(r"\d\s*[*/+^-]\s*[\d(]", right.group())
        ):
            continue
        value, claims = evaluate(left), read_facts(after[:80].strip(), piece=True)[0][:1]
        if value is None or not claims:
            continue
        exact = read_facts(str(value) if isinstance(value, int) else f"{value:.10f}", piece=True)[0]
        if exact and not agrees(claims[0], exact[0]):
            yield f"{left} = {claims[0].text.strip()}", f"{left} = {value if isinstance(value, int) else f'{value:g}'}"


def _sum_before(text: str) -> str:
    """The arithmetic that a text ends with, of at most 200 characters; none where it goes on to the left by a name."""
    start = len(text)
    while start and len(text) - start < 200 and text[start - 1] in _ARITHMETIC:
        start -= 1
    named = start > 0 and (text[start - 1].isalnum() or text[start - 1] == "_") and text[start : start + 1] != " "
    found = text[start:].strip(" .,")
    return "" if named or found[:1] in ("+", "*", "/", "^", "%") else found


def _words(text: str) -> list[str]:
    return [word.casefold().removesuffix("'s") for word in _WORD.findall(text)]


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
