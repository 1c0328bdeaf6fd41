"""Numbers within a tolerance."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.envs.verifiers.numeric import verify_numeric
from agentgym.types import Outcome


@pytest.mark.parametrize(
    ("gold", "answer", "options", "outcome"),
    [
        (3.14159, "\\boxed{3.14}", {"relative": 0.01}, "correct"),
        (3.14159, "\\boxed{3.14}", {"relative": 0.0001}, "incorrect"),
        ("100", "#### 99.5", {"absolute": 0.5}, "correct"),
        ("100", "#### 99.4", {"absolute": 0.5}, "incorrect"),
        (0.1, "\\boxed{0.1}", {}, "incorrect"),  # the float is not the decimal; give it as text, or a tolerance
        ("0.1", "\\boxed{0.1}", {}, "correct"),
        ("1,000", "\\boxed{1000 \\text{ kg}}", {}, "correct"),
        (9.81, "\\boxed{9.8 \\text{ m/s}^2}", {"relative": 0.01}, "correct"),
        ("5", "\\boxed{5 or 6}", {}, "unparsable"),
        ("5", "\\boxed{x}", {}, "unparsable"),
        ("5", "five", {}, "unparsable"),
        ("5", "The answer is 5 metres.", {"extract": "auto"}, "correct"),
        ("12.5%", "\\boxed{0.125}", {}, "correct"),
        ("6.02e23", "\\boxed{6.0 \\times 10^{23}}", {"relative": 0.01}, "correct"),
        (math.nan, "\\boxed{1}", {}, "error"),
        ("no number", "\\boxed{1}", {}, "error"),
        (None, "\\boxed{1}", {}, "error"),
    ],
)
def test_within(gold: object, answer: str, options: dict[str, object], outcome: str) -> None:
    assert verify_numeric(gold, answer, **options) is Outcome(outcome)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [-1.0, math.inf, math.nan])
def test_a_tolerance_that_is_none_is_told(wrong: float) -> None:
    with pytest.raises(ValueError, match="relative"):
        verify_numeric(1, "1", relative=wrong)


@given(st.text(max_size=100))
def test_no_text_crashes_it(text: str) -> None:
    assert verify_numeric(1, f"\\boxed{{{text}}}", relative=0.1) in tuple(Outcome)


@given(st.integers(-(10**9), 10**9), st.integers(0, 100))
def test_the_absolute_tolerance_is_exact(gold: int, off: int) -> None:
    assert bool(verify_numeric(gold, f"#### {gold + off}", absolute=50)) == (off <= 50)
