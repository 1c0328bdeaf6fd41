"""Exact numbers, and where an answer commits to one."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.envs.verifiers.number import final_number, read_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42),
        (" 1,234,567. ", 1234567),
        ("$18.50", Fraction(37, 2)),
        ("-3", -3),
        ("+3", 3),
        ("-$5", -5),
        ("$7$", 7),
        (".5", Fraction(1, 2)),
        ("1/3", Fraction(1, 3)),
        ("007", 7),
        ("1,23", None),
        ("1/0", None),
        ("1e9", None),
        ("٤٢", None),
        ("4 2", None),
        ("42 dollars", None),
        ("", None),
        ("nan", None),
        ("9" * 300, None),
    ],
)
def test_reading(text: str, value: int | Fraction | None) -> None:
    assert read_number(text) == value


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("so #### 42", 42),
        ("#### 1\nno: #### $1,200.", 1200),
        ("#### 42\nthat is it", 42),
        ("#### about 42", None),
        ("####", None),
        ("it is \\boxed{7} or \\boxed{8}.", 8),
        ("\\boxed{x}", None),
        ("I think\n 42.", 42),
        ("42\nI think", None),
        ("The answer is 42", None),
        ("1 2 3 4 5 42", None),
        ("", None),
    ],
)
def test_committing(answer: str, value: int | None) -> None:
    assert final_number(answer) == value


@given(st.fractions(max_denominator=10**6).filter(lambda x: abs(x) < 10**20))
def test_fractions_survive(value: Fraction) -> None:
    assert final_number(f"therefore #### {value}") == value


@given(st.text())
def test_no_text_raises(text: str) -> None:
    assert final_number(text) is None or isinstance(final_number(text), Fraction)
