"""What a tool returns, as the text that the model reads."""

from __future__ import annotations

import json
import math
from array import array
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from agentgym.errors import ToolFault
from agentgym.tools import ToolFailed, ToolSet, tool
from agentgym.tools.driving import drive
from agentgym.tools.output import as_text, written
from agentgym.types import ToolCall


class Color(Enum):
    red = "r"


class Size(StrEnum):
    big = "b"


class Box(BaseModel):
    width: float
    inside: list[Any] = []


@dataclass
class Point:
    x: Any
    y: Any = 0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "NaN"),
        ([math.inf, -math.inf], "[Infinity, -Infinity]"),
        (b"caf\xc3\xa9", "café"),
        (b"\xff\x00", "\\xff\x00"),
        (bytearray(b"ab"), "ab"),
        ([b"ab"], '["ab"]'),
        (Color.red, "r"),
        (Size.big, "b"),
        ({"size": Size.big}, '{"size": "b"}'),
        (Point(1, Point(2)), '{"x": 1, "y": {"x": 2, "y": 0}}'),
        (Point(np.float32(0.5), np.arange(2)), '{"x": 0.5, "y": [0, 1]}'),
        (Box(width=1.5, inside=[1]), '{"width": 1.5, "inside": [1]}'),
        (Box(width=1.5, inside=[np.int64(3)]), '{"width": 1.5, "inside": [3]}'),
        (np.float64(2.5), "2.5"),
        (np.int64(7), "7"),
        (np.bool_(True), "true"),
        (np.array([[1, 2], [3, 4]]), "[[1, 2], [3, 4]]"),
        (np.str_("x"), "x"),
        (array("d", [1.0]), "[1.0]"),
        ({3, 1, 2}, "[1, 2, 3]"),
        (frozenset({"b", "a"}), '["a", "b"]'),
        ({(1, 2): 3, 4: 5, None: 6}, '{"[1, 2]": 3, "4": 5, "null": 6}'),
        ({np.int64(1): {Color.red: 2}}, '{"1": {"r": 2}}'),
        (OrderedDict(a=1), '{"a": 1}'),
        (deque([1, 2]), "[1, 2]"),
        (date(2026, 1, 2), '"2026-01-02"'),
        (Path("a/b"), '"a/b"'),
        (Decimal("1.10"), '"1.10"'),
        ("half \ud83d a pair", "half ? a pair"),
        ({"name": "\udcff"}, '{"name": "?"}'),
        (1j, '"1j"'),
        (None, "null"),
    ],
    ids=lambda value: "set" if isinstance(value, frozenset) else repr(value),
)
def test_values(value: Any, text: str) -> None:
    assert as_text(value) == text


def endless() -> Iterator[int]:
    while True:
        yield 1


LOOP: list[Any] = []
LOOP.append(LOOP)
DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (object(), r"tool 'give' returned a builtins\.object, which cannot be written as JSON; return text"),
        ({"a": [open]}, "builtin_function_or_method"),
        (endless(), "generator"),
        ([iter([1])], "list_iterator"),
        (LOOP, "holds itself"),
        (DEEP, "nested too deeply"),
        (Point, "type"),
    ],
    ids=["object", "function", "generator", "iterator", "loop", "deep", "class"],
)
def test_what_cannot_be_written_is_a_fault_of_the_tool(value: Any, part: str) -> None:
    @tool
    def give() -> Any:
        """Give."""
        return value

    with pytest.raises(ToolFault, match=part):
        drive(ToolSet([give]).run([ToolCall("0", "give")]))


def test_a_giant_integer_is_told_to_the_model() -> None:
    with pytest.raises(ToolFailed, match="too many digits"):
        as_text({"n": 10**5000})
    assert as_text(10**4000) == "1" + "0" * 4000


def test_whatever_is_told_is_cut_visibly() -> None:
    @tool(max_output=50)
    def shout(how: str) -> str:
        """Shout."""
        if how == "fail":
            raise ToolFailed("x" * 1_000_000)
        raise ValueError("y" * 1_000_000)

    tools = ToolSet([shout])
    for how in ("fail", "raise"):
        [result] = drive(tools.run([ToolCall("0", "shout", {"how": how})]))
        assert result.error
        assert len(result.text) < 100
        assert result.text.endswith("more characters cut]")
    [unknown] = drive(tools.run([ToolCall("0", "z" * 1_000_000)]))
    assert len(unknown.text) < 200
    [broken] = drive(tools.run([ToolCall("0", "shout", {}, "bad " * 1_000_000)]))
    assert len(broken.text) < 8100
    many = {f"a{i}": i for i in range(10_000)}
    [wrong] = drive(ToolSet(["calculator"]).run([ToolCall("0", "calculator", many)]))
    assert "argument 'expression' is missing" in wrong.text
    assert "more. Arguments: expression: string" in wrong.text
    assert len(wrong.text) < 600


def test_a_foreign_tool_is_held_to_the_same() -> None:
    class Foreign:
        name = "odd"
        schema = {"type": "function", "function": {"name": "odd", "description": "", "parameters": {}}}  # noqa: RUF012
        answers: Any = "x" * 20_000

        async def call(self, arguments: Any, episode: Any = None) -> str:
            return self.answers  # type: ignore[no-any-return]

    foreign = Foreign()
    tools = ToolSet([foreign])
    assert drive(tools.run([ToolCall("0", "odd")]))[0].text.endswith("[... 12,000 more characters cut]")
    foreign.answers = {"a": 1}
    assert drive(tools.run([ToolCall("0", "odd")]))[0].text == '{"a": 1}'
    foreign.answers = object()
    with pytest.raises(ToolFault, match="tool 'odd' returned a"):
        drive(tools.run([ToolCall("0", "odd")]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=80)
@given(JSON.filter(lambda value: not isinstance(value, str)))
def test_json_comes_back_as_it_was(value: Any) -> None:
    text = written(value, "t", 1 << 30)
    assert json.loads(text) == value
