"""Java and JavaScript literals."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.envs.function_calling.literals import read_literal
from agentgym.envs.function_calling.matching import value_fits


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("15L", "integer", 15),
        ("1_000", "integer", 1000),
        ("-3", "number", -3),
        ("2.5f", "number", 2.5),
        ("true", "boolean", True),
        ("'c'", "string", "c"),
        ('"a, b"', "string", "a, b"),
        ("new int[]{1, 2, 3}", "array", [1, 2, 3]),
        ('new String[]{"a", "b"}', "array", ["a", "b"]),
        ("Arrays.asList(1L, 2L)", "array", [1, 2]),
        ("List.of()", "array", []),
        ("new ArrayList<>(Arrays.asList('a', 'b'))", "array", ["a", "b"]),
        ("new ArrayList<Integer>()", "array", []),
        ('new HashMap<String, Integer>() {{ put("a", 1); put("b", 2); }}', "object", {"a": 1, "b": 2}),
        ('Map.of("a", 1)', "object", {"a": 1}),
        ("[1, 'two', [3]]", "array", [1, "two", [3]]),
        ("{a: 1, 'b': {c: true}, d: someName}", "object", {"a": 1, "b": {"c": True}, "d": "someName"}),
        ("123n", "integer", 123),
        # no literals of their kind: they stay as they are
        ("userId", "integer", "userId"),
        ("new Path('/x')", "array", "new Path('/x')"),
        ("[1, 2", "array", "[1, 2"),
        ("{{{", "object", "{{{"),
        ("1", "boolean", "1"),
        ("true", "integer", "true"),
        ("'a' + 'b'", "string", "'a' + 'b'"),
    ],
)
def test_literals(text: str, kind: str, value: Any) -> None:
    read = read_literal(text, kind)
    assert read == value
    assert type(read) is type(value)


@given(st.text(alphabet="[](){}'\",:; newArayListof123.L\\", max_size=60))
def test_no_text_raises(text: str) -> None:
    for kind in ("integer", "number", "boolean", "array", "object", "string", "any"):
        read_literal(text, kind)


def test_deep_and_long_texts_stay_texts() -> None:
    unclosed = ("new x" + "[ ]" * 1000, "1" * 3000 + "x", "1_" * 1500 + "x", "new a" + "<" * 3000, "Map.of(" * 500)
    for text in ("[" * 10_000 + "]" * 10_000, "[" * 100 + "]" * 100, "9" * 30_000, *unclosed):
        assert read_literal(text, "array") == text


def test_values_may_be_literals_or_json() -> None:
    spec = {"type": "ArrayList", "items": {"type": "long"}}
    for value in ("new ArrayList<>(Arrays.asList(101L, 202L))", [101, 202], "List.of(101L,202L)"):
        assert value_fits(value, [[101, 202]], spec, "java")
    assert not value_fits("List.of(101L)", [[101, 202]], spec, "java")
    assert not value_fits("List.of(101L, 202L)", [[101, 202]], spec, "python")
    assert value_fits("2.5f", [2.5], {"type": "float"}, "java")
    assert value_fits("someController", ["someController"], {"type": "any"}, "java")
