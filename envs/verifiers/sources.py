"""Where an episode's facts may come from: its prompt, its tools' results, and sums that it let a calculator do."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import combinations_with_replacement
from typing import Any, Literal

from agentgym.envs.verifiers.quantities import Code, Quantity, agrees, read_facts
from agentgym.tools.calculator import CalculatorError, calculate
from agentgym.types import Message

Derive = Literal["calls", "pairs"]
CONSTANTS = frozenset(map(Fraction, (*range(11), 12, 24, 60, 100, 365, 1000)))
"""Numbers that an expression may use though nobody said them: a dozen, percent, hours, minutes, days."""
MAX_PAIRED = 60
"""Numbers seen that are added, subtracted, multiplied and divided with each other."""
_EXPRESSION = re.compile(r"[\d\s.,()%*/+^-]*\d[\d\s.,()]*[*/+^%-][\d\s.,()*/+^%-]*")
_OPERATORS: tuple[Callable[[Fraction, Fraction], Fraction], ...] = (operator.add, operator.sub, operator.mul)


@dataclass(frozen=True, slots=True)
class Source:
    """A text that facts come from. What stands in `asked`, the arguments of the call that it answers, does not come
    from it: a tool that repeats what it was told proves nothing."""

    text: str
    asked: str = ""
    quantities: Sequence[Quantity] = ()
    codes: frozenset[str] = frozenset()


@dataclass(slots=True)
class Sources:
    """What the agent was shown, in order."""

    derive: Derive = "calls"
    found: list[Source] = field(default_factory=list)
    _asked: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    _paired: list[Quantity] | None = None

    @classmethod
    def of(cls, messages: Iterable[Message], derive: Derive = "calls") -> Sources:
        """Of a conversation."""
        sources = cls(derive)
        for message in messages:
            sources.see(message)
        return sources

    def see(self, message: Message) -> None:
        """Add the next message; what the agent itself says is no source."""
        if message.role == "assistant":
            self._asked.update((call.id, call.arguments) for call in message.tool_calls)
        elif message.role == "tool":
            self._add_result(message.text, self._asked.get(message.tool_call_id or "", {}))
        else:
            self._add(message.text)

    def has_quantity(self, claim: Quantity) -> bool:
        """Whether a number was seen, alone or as part of a code, or follows from what was as `derive` allows."""
        if claim.text in set().union(*(source.codes for source in self.found)):
            return True
        if any(agrees(claim, seen) for source in self.found for seen in source.quantities):
            return True
        return self.derive == "pairs" and any(agrees(claim, seen) for seen in self._pairs())

    def has_code(self, claim: Code) -> bool:
        seen = set().union(*(source.codes for source in self.found))
        if claim.key in seen:
            return True
        # somebody said "May 20" and somebody the year
        return claim.is_date and claim.key[5:] in seen and any(code.startswith(claim.key[:5]) for code in seen)

    def has_words(self, words: str) -> bool:
        """Whether a quotation or name stands in what was shown, but for case and spaces."""
        wanted = _flat(words)
        return any(wanted in source.text and wanted not in source.asked for source in self.found)

    def _add(self, text: str, asked: str = "", invented: Sequence[Quantity] = ()) -> None:
        quantities, codes = read_facts(text)
        given, given_codes = read_facts(asked)
        own = {quantity.value for quantity in given}
        keys = {key for code in codes for key in code.keys} - {code.key for code in given_codes}
        kept = [q for q in quantities if q.value not in own and not any(agrees(q, one) for one in invented)]
        self.found.append(Source(_flat(text), _flat(asked), kept, frozenset(keys)))
        self._paired = None

    def _add_result(self, text: str, arguments: Mapping[str, Any]) -> None:
        invented: list[Quantity] = []
        for expression in _strings(arguments):
            if not _EXPRESSION.fullmatch(expression) or (value := evaluate(expression)) is None:
                continue
            if self._knows_operands(expression):
                self._add(str(value))
            else:  # a calculator that is given invented numbers returns invented numbers
                invented += read_facts(str(value), piece=True)[0]
        self._add(text, json.dumps(arguments, ensure_ascii=False, default=str), invented)

    def _knows_operands(self, expression: str) -> bool:
        operands = read_facts(spaced(expression), piece=True)[0]
        known = [self.has_quantity(operand) for operand in operands]
        return any(known) and all(
            seen or operand.value in CONSTANTS for seen, operand in zip(known, operands, strict=True)
        )

    def _pairs(self) -> list[Quantity]:
        if self._paired is None:
            seen = list(dict.fromkeys(q.value for source in self.found for q in source.quantities))[:MAX_PAIRED]
            self._paired = [_exact(value) for value in dict.fromkeys(_combined(seen))]
        return self._paired


def evaluate(expression: str) -> Fraction | float | int | None:
    """An arithmetic expression's value; None where it has none."""
    try:
        return calculate(expression.replace(",", "").replace("^", "**"))
    except CalculatorError:
        return None


def spaced(expression: str) -> str:
    """An expression with its operators apart, so that `7-5` is read as two numbers without a sign."""
    return re.sub(r"([*/+^%()-])", r" \1 ", expression)


def _combined(values: Sequence[Fraction]) -> Iterator[Fraction]:
    for a, b in combinations_with_replacement(values, 2):
        for combine in _OPERATORS:
            yield combine(a, b)
        if b:
            yield a / b
        if a:
            yield b / a


def _exact(value: Fraction) -> Quantity:
    """As if written with all its digits, of which a claim may be a rounding."""
    return Quantity(value, Fraction(0), str(value), 0, 0)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def _flat(text: str) -> str:
    return " ".join(text.casefold().split())
