"""Is the world as it should be? Compares nested state and says, path by path, what differs."""

from __future__ import annotations

import dataclasses
import math
import numbers
import re
import reprlib
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import Any

from agentgym.envs.verifiers.verdict import Verdict, correct, incorrect

MAX_DEPTH = 200
MAX_UNORDERED = 500
"""Items of a list that is compared without its order: each is compared with each."""
SHOWN = 20
"""Differences that a verdict names."""
_NUMBER = (numbers.Real, Decimal)
_REPR = reprlib.Repr()  # bounded, for a value of any depth and size
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 80
_INDEX = re.compile(r"\[([^\[\]]*)\]")


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where the state is not as expected; `path` reads `orders[3].status`, empty at the root."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path or 'the whole'}: {self.text}"


def verify_state(
    expected: Any,
    actual: Any,
    *,
    ignore: Collection[str] = (),
    tolerance: float = 0.0,
    ordered: bool = True,
) -> Verdict:
    """`correct` where `actual` is the state that was `expected`; the reason names up to 20 differences.

    Args:
        expected, actual: dicts, lists, tuples, sets, dataclasses, pydantic models and plain values, nested. A model or
            dataclass equals the dict of its fields, a tuple the list of its items; 1 equals 1.0, but True is no 1.
        ignore: paths that do not count, such as "orders[*].updated_at"; `*` stands for any one key or index. What
            lies below such a path does not count either.
        tolerance: numbers are equal that differ by at most this, times the larger of 1 and the expected one.
        ordered: False: lists are equal that hold equal items in any order.

    Raises `ValueError` for expected state that is nested too deeply (or in itself) or has too long unordered lists.
    """
    comparer = Comparer(ignore=ignore, tolerance=tolerance, ordered=ordered)
    found = list(islice(comparer.differences(expected, actual), SHOWN + 1))
    if not found:
        return correct()
    more = "\n..." if len(found) > SHOWN else ""
    return incorrect("\n".join(map(str, found[:SHOWN])) + more)


class Comparer:
    """Finds differences; the arguments are those of `verify_state`."""

    def __init__(self, *, ignore: Collection[str] = (), tolerance: float = 0.0, ordered: bool = True):
        if not tolerance >= 0:
            raise ValueError(f"tolerance = {tolerance!r}: must be 0 or more")
        patterns = [ignore] if isinstance(ignore, str) else ignore
        self._ignore = tuple(_segments(pattern) for pattern in patterns)
        self._tolerance = tolerance
        self._ordered = ordered

    def differences(self, expected: Any, actual: Any) -> Iterator[Difference]:
        """Every difference, in the order of the expected state."""
        return self._compare(_plain(expected), _plain(actual), ())

    def _compare(self, expected: Any, actual: Any, path: tuple[Any, ...]) -> Iterator[Difference]:
        if self._ignored(path):
            return
        if len(path) > MAX_DEPTH:
            raise ValueError(f"state is nested more than {MAX_DEPTH} deep, or in itself, at {_shown(path)[:80]}")
        if isinstance(expected, Mapping) and isinstance(actual, Mapping):
            yield from self._mappings(expected, actual, path)
        elif isinstance(expected, Set) and isinstance(actual, Set):
            yield from self._sets(expected, actual, path)
        elif _is_list(expected) and _is_list(actual):
            compare = self._in_order if self._ordered else self._in_any_order
            yield from compare(expected, actual, path)
        elif not self._same(expected, actual):
            yield Difference(_shown(path), f"expected {_brief(expected)}, is {_brief(actual)}")

    def _mappings(
        self, expected: Mapping[Any, Any], actual: Mapping[Any, Any], path: tuple[Any, ...]
    ) -> Iterator[Difference]:
        for key, value in expected.items():
            here = (*path, key)
            if key in actual:
                yield from self._compare(_plain(value), _plain(actual[key]), here)
            elif not self._ignored(here):
                yield Difference(_shown(here), f"is missing, expected {_brief(value)}")
        for key, value in actual.items():
            if key not in expected and not self._ignored((*path, key)):
                yield Difference(_shown((*path, key)), f"is not expected: {_brief(value)}")

    def _sets(self, expected: Set[Any], actual: Set[Any], path: tuple[Any, ...]) -> Iterator[Difference]:
        for missing in sorted(expected - actual, key=repr):
            yield Difference(_shown(path), f"lacks {_brief(missing)}")
        for added in sorted(actual - expected, key=repr):
            yield Difference(_shown(path), f"is not to hold {_brief(added)}")

    def _in_order(self, expected: Sequence[Any], actual: Sequence[Any], path: tuple[Any, ...]) -> Iterator[Difference]:
        if len(expected) != len(actual):
            yield Difference(_shown(path), f"expected {len(expected)} items, has {len(actual)}")
        for i, (one, other) in enumerate(zip(expected, actual, strict=False)):
            yield from self._compare(_plain(one), _plain(other), (*path, i))

    def _in_any_order(
        self, expected: Sequence[Any], actual: Sequence[Any], path: tuple[Any, ...]
    ) -> Iterator[Difference]:
        if len(actual) > MAX_UNORDERED >= len(expected):
            yield Difference(_shown(path), f"expected {len(expected)} items, has {len(actual)}")
            return
        pairs = self._match(expected, actual, path)
        for i in sorted(set(range(len(expected))) - set(pairs.values())):
            if not self._ignored((*path, i)):
                yield Difference(_shown(path), f"lacks {_brief(expected[i])}")
        for j in sorted(set(range(len(actual))) - set(pairs)):
            if not self._ignored((*path, j)):
                yield Difference(_shown(path), f"is not to hold {_brief(actual[j])}")

    def _match(self, expected: Sequence[Any], actual: Sequence[Any], path: tuple[Any, ...]) -> dict[int, int]:
        """Which actual item stands for which expected one: as many pairs as there can be (Kuhn's algorithm)."""
        if len(expected) > MAX_UNORDERED:
            raise ValueError(f"{_shown(path)}: more than {MAX_UNORDERED} items to compare without their order")
        equal = [
            [j for j, other in enumerate(actual) if self._equal(one, other, (*path, i))]
            for i, one in enumerate(expected)
        ]
        pairs: dict[int, int] = {}
        for i in range(len(expected)):
            _augment(i, equal, pairs)
        return pairs

    def _equal(self, one: Any, other: Any, path: tuple[Any, ...]) -> bool:
        return next(self._compare(_plain(one), _plain(other), path), None) is None

    def _same(self, expected: Any, actual: Any) -> bool:
        if isinstance(expected, bool) or isinstance(actual, bool):
            return expected is actual
        if isinstance(expected, _NUMBER) and isinstance(actual, _NUMBER):
            return self._close(expected, actual)
        return bool(expected == actual)

    def _close(self, expected: Any, actual: Any) -> bool:
        if expected == actual or (expected != expected and actual != actual):  # NaN stands for NaN
            return True
        if not self._tolerance:
            return False
        try:
            off, scale = abs(float(expected) - float(actual)), max(1.0, abs(float(expected)))
        except OverflowError:  # an integer beyond any float
            return False
        # a price of 0.3 is not to miss 0.1 by 0.2000000001
        return math.isfinite(off) and off <= self._tolerance * scale * (1 + 1e-9)

    def _ignored(self, path: tuple[Any, ...]) -> bool:
        return any(_fits(pattern, path) for pattern in self._ignore)


def _augment(start: int, equal: Sequence[Sequence[int]], pairs: dict[int, int]) -> bool:
    """Pair `start`, if others can make room; without recursion, as chains may be long."""
    came: dict[int, int] = {}
    waiting = [start]
    while waiting:
        i = waiting.pop()
        for j in equal[i]:
            if j in came:
                continue
            came[j] = i
            if j in pairs:
                waiting.append(pairs[j])
                continue
            held = {left: right for right, left in pairs.items()}
            while True:  # back to `start`, each giving up what it held for what it was offered
                i = came[j]
                pairs[j] = i
                if i == start:
                    return True
                j = held[i]
    return False


def _plain(value: Any) -> Any:
    """A pydantic model, dataclass or NumPy value as plain data; everything else as it is."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if hasattr(value, "model_dump") and not isinstance(value, type):
        return value.model_dump()
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        return value.tolist()
    return value


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)


def _segments(pattern: str) -> tuple[str, ...]:
    return tuple(part for part in _INDEX.sub(r".\1", pattern).split(".") if part)


def _fits(pattern: tuple[str, ...], path: tuple[Any, ...]) -> bool:
    return len(pattern) == len(path) and all(p in ("*", str(key)) for p, key in zip(pattern, path, strict=True))


def _shown(path: tuple[Any, ...]) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")


def _brief(value: Any) -> str:
    text = _REPR.repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
