"""The calculator against Python's own arithmetic, and against hostile input."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.tools.calculator import MAX_CHARS, CalculatorError, calculate

numbers = st.one_of(st.integers(0, 10**6).map(str), st.floats(0, 1e6, allow_nan=False).map(lambda x: f"{x:.3f}"))
expressions = st.recursive(
    numbers,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%", " + ", " * "]), inner).map("".join),
        inner.map(lambda x: f"({x})"),
        inner.map(lambda x: f"-{x}"),
    ),
    max_leaves=8,
)


@given(expressions)
def test_agrees_with_python(expression: str) -> None:
    try:
        expected: Any = eval(expression, {"__builtins__": {}})
    except ZeroDivisionError:
        with pytest.raises(CalculatorError, match="division by zero"):
            calculate(expression)
        return
    except SyntaxError:  # numbers such as 007 cannot come up, but "- -" and the like are Python's to judge
        with pytest.raises(CalculatorError):
            calculate(expression)
        return
    assert calculate(expression) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(st.integers(-(10**30), 10**30), st.integers(-(10**30), 10**30))
def test_integers_are_exact(a: int, b: int) -> None:
    assert calculate(f"{a}+({b})") == a + b
    assert calculate(f"{a}*({b})") == a * b
    if b:
        assert calculate(f"({a * b})/({b})") == a


@given(st.text(max_size=60))
def test_no_text_does_anything_but_compute_or_refuse(text: str) -> None:
    try:
        value: object = calculate(text)
    except CalculatorError as e:
        value = e
    assert isinstance(value, int | float | CalculatorError)


@pytest.mark.parametrize(
    "hostile",
    [
        "9**9**9**9",
        "(" * 400 + "1" + ")" * 90,
        "-" * 400 + "1",
        "2**100000000",
        "1" * MAX_CHARS + "1",
        "10**400*1.0",
        "(0-8)**0.5",
        "1e999",
        "__import__('os')",
        "a.b",
        "1 if 1 else 2",
        "[1]*10",
        "'a'*10",
        "1,2",
        "1j",
        "0**-1",
        "2**4000*2**4000",
        "True+1",
        "",
        "\x00",
        "1<<9",
        "~1",
    ],
)
def test_hostile_input_is_refused(hostile: str) -> None:
    with pytest.raises(CalculatorError):
        calculate(hostile)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("37*47+12", 1751),
        ("7/2", 3.5),
        ("6/3", 2),
        ("-2**2", -4),
        ("1**999999", 1),
        ("(-1)**5001", -1),
        (" 1_000 ", 1000),
    ],
)
def test_examples(expression: str, value: float) -> None:
    result = calculate(expression)
    assert result == value
    assert type(result) is type(value)
