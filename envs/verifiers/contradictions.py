"""Where an agent's words differ from its earlier ones, from a tool's result, or from arithmetic.

Two statements are held against each other only where they name the same thing by the same words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from agentgym.envs.verifiers.quantities import agrees, read_facts
from agentgym.envs.verifiers.sources import Sources, evaluate
from agentgym.envs.verifiers.statements import ATTRIBUTES, FILLER, Statement, read_statements, singular, words_of
from agentgym.types import Message

_RIGHT = re.compile(r"\s{0,9}[-+]?\$?[\d(][\d\s.,()+*/^%-]{0,200}")
_ARITHMETIC = frozenset("0123456789 .,()+*/^%-")
MAX_EQUATIONS = 200
"""Of a message."""


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
    sources = Sources()
    for index, message in enumerate(messages):
        if message.role == "assistant":
            asked.update((call.id, (call.name, call.arguments)) for call in message.tool_calls)
            found += [Contradiction(index, said, truth) for said, truth in _wrong_sums(message.text)]
            for statement in read_statements(message.text):
                against = _own_clash(statement, own, messages, index) or _tool_clash(statement, told, sources)
                if against is not None:
                    found.append(Contradiction(index, statement.text, against.text))
                own.append((index, statement))
        elif message.role == "tool":
            name, arguments = asked.get(message.tool_call_id or "", ("", {}))
            told += _tool_statements(name, arguments, message.text)
        sources.see(message)
    return found


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
    words = {singular(word) for given in arguments.values() if isinstance(given, str) for word in words_of(given)}
    words = {word for word in words if word not in FILLER}
    if len(quantities) == 1 and not codes and words and len(text) <= 40:
        hint = next((ATTRIBUTES[word] for word in re.split(r"[\W_]+", name.casefold()) if word in ATTRIBUTES), "")
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
                hint = next((ATTRIBUTES[word] for word in words if word in ATTRIBUTES), "")
                subject = words_of(names[0]) if names else [word for word in words if word not in ATTRIBUTES]
                if quantities and subject and (hint or not names):
                    yield Statement(
                        frozenset(map(singular, subject)), hint, quantities[0], "", f"{key}: {item} in {shown}"
                    )
            else:
                yield from _fields(item, shown, depth + 1)
