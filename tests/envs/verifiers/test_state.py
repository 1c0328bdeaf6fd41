"""Is the world as it should be, and what differs."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from agentgym.envs.verifiers.state import MAX_UNORDERED, verify_state
from agentgym.types import Outcome


@dataclass
class Order:
    id: str
    items: list[str] = field(default_factory=list)
    paid: bool = False


class User(BaseModel):
    name: str
    orders: list[int] = []


WORLD = {"orders": [{"id": "W1", "status": "open", "at": 5}, {"id": "W2", "status": "sent", "at": 6}], "cash": 10.0}


def changed(**changes: Any) -> dict[str, Any]:
    world = copy.deepcopy(WORLD)
    world["orders"][1].update(changes)  # type: ignore[index, attr-defined]
    return world


def test_the_reason_reads_path_by_path() -> None:
    verdict = verify_state(WORLD, {**changed(status="lost", note="?"), "extra": 1})
    assert verdict.outcome is Outcome.incorrect
    assert verdict.reason.splitlines() == [
        "orders[1].status: expected 'sent', is 'lost'",
        "orders[1].note: is not expected: '?'",
        "extra: is not expected: 1",
    ]
    assert verify_state(WORLD, {"orders": []}).reason.splitlines() == [
        "orders: expected 2 items, has 0",
        "cash: is missing, expected 10.0",
    ]
    assert verify_state(1, 2).reason == "the whole: expected 1, is 2"


@pytest.mark.parametrize("ignore", ["orders[*].at", "orders.1.at", "orders[1]", "orders", "*[1].at"])
def test_paths_that_do_not_count(ignore: str) -> None:
    assert verify_state(WORLD, changed(at=99), ignore=[ignore])
    assert not verify_state(WORLD, {**changed(at=99), "cash": 1}, ignore=[ignore])
    assert verify_state(WORLD, changed(at=99), ignore=ignore), "one path needs no list"


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        (Order("W1", ["a"]), {"id": "W1", "items": ["a"], "paid": False}),
        (User(name="Ada", orders=[1]), {"name": "Ada", "orders": (1,)}),
        ({"user": User(name="Ada")}, {"user": User(name="Ada")}),
        ([1, (2, 3)], (1.0, [2, 3])),
        ({1, 2}, frozenset((2, 1))),
        (date(2024, 5, 1), date(2024, 5, 1)),
        (float("nan"), float("nan")),
        (Decimal("1.5"), 1.5),
        (None, None),
    ],
)
def test_equal(expected: Any, actual: Any) -> None:
    assert verify_state(expected, actual), verify_state(expected, actual).reason


@pytest.mark.parametrize(
    ("expected", "actual"),
    [(True, 1), (0, False), (1, "1"), (None, 0), ("a", b"a"), ([1], {0: 1}), ({1}, {2}), ("ab", ["a", "b"]), ({}, [])],
)
def test_different(expected: Any, actual: Any) -> None:
    assert not verify_state(expected, actual)


def test_tolerance() -> None:
    assert verify_state({"a": [0.3, 1000]}, {"a": [0.1 + 0.2, 1000.9]}, tolerance=1e-3)
    assert not verify_state({"a": 1000}, {"a": 1002}, tolerance=1e-3)
    assert not verify_state(0.3, 0.1 + 0.2)
    assert verify_state(0.3, 0.4, tolerance=0.1)
    assert not verify_state(10**400, 10**400 + 1, tolerance=0.1)
    assert not verify_state(1.0, float("inf"), tolerance=0.1)


def test_lists_in_any_order() -> None:
    rows = [{"id": i, "tags": ["x", "y"]} for i in range(5)]
    other = [{"id": i, "tags": ["y", "x"]} for i in reversed(range(5))]
    assert not verify_state(rows, other)
    assert verify_state(rows, other, ordered=False)
    found = verify_state([1, 1, 2], [2, 1, 3], ordered=False).reason.splitlines()
    assert found == ["the whole: lacks 1", "the whole: is not to hold 3"]
    # 0.9 must leave 1.0 to the one that has no other
    assert verify_state([1.0, 0.8], [0.9, 1.1], tolerance=0.11, ordered=False)
    assert "has 600" in verify_state([1], [0] * 600, ordered=False).reason
    with pytest.raises(ValueError, match="items to compare"):
        verify_state([0] * (MAX_UNORDERED + 1), [], ordered=False)


def test_state_in_itself() -> None:
    loop: dict[str, Any] = {}
    loop["self"] = loop
    with pytest.raises(ValueError, match="nested more than"):
        verify_state(loop, loop)


NESTED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(NESTED)
def test_everything_equals_its_copy(state: Any) -> None:
    assert verify_state(state, copy.deepcopy(state))
    assert verify_state(state, copy.deepcopy(state), ordered=False)


@given(st.lists(st.integers(0, 3), max_size=7), st.randoms())
def test_any_order_is_any_order(items: list[int], rng: Any) -> None:
    other = items.copy()
    rng.shuffle(other)
    assert verify_state(items, other, ordered=False)
    assert not verify_state([*items, 4], [*other, 5], ordered=False)
