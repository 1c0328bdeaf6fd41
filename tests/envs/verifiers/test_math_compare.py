"""What the processes of the math verifier compute, called here directly: verdicts, sizes, texts."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
import sympy  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgym.envs.verifiers.math import size
from agentgym.envs.verifiers.math.compare import compare, equal, gold_readable, read
from agentgym.envs.verifiers.math.size import MAX_BITS, TooLarge, check_size, check_text
from agentgym.envs.verifiers.math.wording import formula, is_words, plain, same_text, side_by_side


def verdict(gold: str, answer: str) -> str:
    return compare(gold, False, answer, False)


SAME = [
    *[("\\frac12", "0.5"), ("9\\%", "0.09"), ("2\\sqrt3", "sqrt(12)"), ("30^\\circ", "30"), ("√2", "2^{1/2}")],
    *[("x≥2", "[2,\\infty)"), ("\\mathbb{R}", "(-\\infty,\\infty)"), ("∅", "\\emptyset"), ("x<3", "3>x")],
    *[("i^2", "-1"), ("e^{i\\pi}", "-1"), ("\\ln 4", "2\\ln 2"), ("\\sin^2 x+\\cos^2 x", "1"), ("1/x", "x^{-1}")],
    *[("f(n)=2n", "f(x)=2x"), ("x+y=1", "2x+2y=2"), ("x^2+1=0", "2x^2+2=0"), ("y=2x", "2x=y"), ("a+b", "b+a")],
    *[("abc", "cba"), ("A", "(A)"), ("A", "A. 12"), ("(1,2),(3,4)", "(3,4),(1,2)"), ("20!", "2432902008176640000")],
    *[("\\{1,2\\}", "\\{2,1\\}"), ("9^{9^9}", "9^{9^9}"), ("\\text{Evelyn}", "Evelyn."), ("10^{5000}", "100^{2500}")],
    *[("0", "\\sqrt{4}-2"), ("5-5", "0"), ("0", "\\sin(\\pi)"), ("2-\\sqrt4", "\\cos\\frac{\\pi}{2}"), ("0", "\\ln 1")],
    *[("\\frac{1}{0}", "\\frac{1}{0}"), ("\\binom{20000}{10000}", "\\binom{20000}{10000}+0")],
]  # fmt: skip
OTHER = [
    *[("10^{-7}", "0"), ("10^{-200}", "\\sin(\\pi)"), ("9", "0.09"), ("9", "900"), ("0.333", "1/3")],
    *[("\\frac{1}{0}", "\\frac{2}{0}"), ("10^{-400}", "0"), ("0", "e^{-1000}"), ("10^{-400}", "\\sqrt{4}-2")],
    *[("x^2+1=0", "x^2+2=0"), ("x=1", "x=2"), ("e^{i\\pi}=-1", "1"), ("f(n)=2n", "f(x)=3x"), ("f(n)=2n", "g(x)=2x")],
    *[("\\infty", "-\\infty"), ("|x|", "x"), ("\\sqrt{x^2}", "x"), ("x<3", "x\\le 3"), ("(1,2)", "(2,1)")],
    *[("even", "odd"), ("even", "2"), ("2", "even"), ("C", "A"), ("", "3"), ("1 2", "3"), ("9^{9^9}", "3")],
    *[("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{pmatrix}1&2\\\\3&5\\end{pmatrix}")],
    *[("\\binom{20000}{10000}", "1"), ("1", "\\binom{20000}{10000}")],
]  # fmt: skip
NOTHING = ["", "1 2", "$", "\\frac{1}{", "3 +", "^"]
"""Answers that commit to no value."""


@pytest.mark.parametrize(("gold", "answer"), SAME)
def test_the_same_value(gold: str, answer: str) -> None:
    assert verdict(gold, answer) == "correct"


@pytest.mark.parametrize(("gold", "answer"), OTHER)
def test_another_value(gold: str, answer: str) -> None:
    assert verdict(gold, answer) == "incorrect"


@pytest.mark.parametrize("answer", NOTHING)
def test_an_answer_that_is_none(answer: str) -> None:
    assert verdict("3", answer) == "unparsable"


SUMS = st.recursive(
    st.integers(0, 20).map(lambda n: (str(n), Fraction(n))),
    lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda parts: _written(*parts)),
    max_leaves=5,
)
"""An expression in LaTeX, and what it comes to; None where it divides by zero."""


def _written(
    left: tuple[str, Fraction | None], sign: str, right: tuple[str, Fraction | None]
) -> tuple[str, Fraction | None]:
    (a, x), (b, y) = left, right
    text = {"+": f"({a}+{b})", "-": f"({a}-{b})", "*": f"{a}\\cdot {b}", "/": f"\\frac{{{a}}}{{{b}}}"}[sign]
    if x is None or y is None or (sign == "/" and not y):
        return text, None
    return text, {"+": x + y, "-": x - y, "*": x * y, "/": x / (y or 1)}[sign]


@given(SUMS)
@settings(max_examples=40)
def test_arithmetic_is_what_it_comes_to(found: tuple[str, Fraction | None]) -> None:
    text, value = found
    if value is None:
        assert verdict("1", text) != "correct"
        return
    gold = f"\\frac{{{value.numerator}}}{{{value.denominator}}}"
    assert verdict(gold, text) == "correct"
    assert verdict(text, gold) == "correct"
    assert verdict(f"\\frac{{{value.numerator + value.denominator}}}{{{value.denominator}}}", text) == "incorrect"


def test_values_in_prose() -> None:
    assert compare("7", False, "so we get $x = 7$, which is what was asked", True) == "correct"
    assert compare("7", False, "so we get $x = 8$, which is what was asked", True) == "incorrect"
    assert compare("7", False, "nobody knows", True) == "unparsable"
    assert compare("the result is $\\frac{3}{4}$", True, "0.75", False) == "correct"


def test_an_answer_too_large_is_told_and_a_gold_is_met_by_its_text_alone() -> None:
    assert verdict("5", "9^{9^9}") == "timeout"
    assert verdict("5", "\\binom{60000}{30000}") == "timeout"  # which the parser computes by itself
    assert verdict("9^{9^9}", " 9^{9^9}. ") == "correct"


@pytest.mark.parametrize(
    ("gold", "prose", "readable"),
    [
        ("\\frac{1}{2}", False, True),
        ("no solution", False, True),
        ("9^{9^9}", False, True),
        ("it is $4$", True, True),
        ("nothing at all", True, False),
        ("\\frac{1}{", False, False),
        ("", False, False),
    ],
)
def test_what_can_be_compared_with(gold: str, prose: bool, readable: bool) -> None:
    assert gold_readable(gold, prose) is readable


def test_what_has_no_value_equals_nothing() -> None:
    assert not equal(sympy.nan, sympy.nan)
    assert not equal(sympy.zoo, sympy.zoo)
    assert equal(sympy.Integer(3), sympy.Integer(3))


# -- sizes ------------------------------------------------------------------------------------------------------------

SMALL = st.recursive(
    st.integers(-12, 12).map(sympy.Integer)
    | st.fractions(-5, 5, max_denominator=9).map(lambda f: sympy.Rational(f.numerator, f.denominator)),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(lambda args: sympy.Add(*args, evaluate=False)),
        st.lists(inner, min_size=2, max_size=3).map(lambda args: sympy.Mul(*args, evaluate=False)),
        st.tuples(inner, st.integers(-3, 5)).map(lambda t: sympy.Pow(t[0], sympy.Integer(t[1]), evaluate=False)),
        st.integers(0, 12).map(lambda n: sympy.factorial(sympy.Integer(n), evaluate=False)),
    ),
    max_leaves=4,
)


@given(SMALL)
@settings(max_examples=60)
def test_no_value_is_larger_than_its_form_says(node: Any) -> None:
    value = node.doit()
    if value.is_finite and value != 0:
        assert math.log2(abs(Fraction(value.p, value.q))) <= size._bits(node) + 1e-9


@pytest.mark.parametrize(
    ("text", "most"),
    [
        ("2^{10000}", "2^{50000}"),
        ("2000!", "9000!"),
        ("e^{9000}", "e^{50000}"),
        ("e^{9}", "e^{2^{99}}"),
        ("\\binom{9999}{9}", "\\binom{60000}{30000}"),
        ("(x+1)^{400}", "(x+y+z+1)^{200}"),
        ("2^{0.5}", "9^{9.5^9}"),
        ("1^{9}", "3^{2^{99}}"),
        ("(a+b)^{\\frac12}", "(a+b)^{7^9}"),
        ("10^{300}", "10^{10^{10}}"),
    ],
)
def test_what_is_computed_and_what_is_not(text: str, most: str) -> None:
    assert read(text, False)
    with pytest.raises(TooLarge):
        read(most, False)


def test_numbers_that_are_large_already() -> None:
    check_size(sympy.Integer(2) ** int(MAX_BITS - 2))
    for grown in (sympy.Integer(2) ** int(MAX_BITS + 2), sympy.Rational(1, 3 ** int(MAX_BITS))):
        with pytest.raises(TooLarge, match="digits"):
            check_size(grown)
        with pytest.raises(TooLarge, match="digits"):
            check_size(sympy.FiniteSet(grown))


def test_many_parts() -> None:
    x = sympy.Symbol("x")
    check_size(sympy.Add(*[x**n for n in range(1000)]))
    with pytest.raises(TooLarge, match="parts"):
        check_size(sympy.Add(*[x**n for n in range(2000)]))
    with pytest.raises(TooLarge, match="terms"):
        check_size(sympy.Mul(*[sympy.Add(x, n) for n in range(10)]))


@pytest.mark.parametrize(
    ("right", "wrong", "why"),
    [
        ("9" * 999, "9" * 1000, "digits"),
        ("{" * 60 + "1" + "}" * 60, "{" * 61 + "1" + "}" * 61, "deeply"),
        ("(" * 12 + "1" + ")" * 12, "([" * 6 + "(1)" + "])" * 6, "deeply"),
        ("()" * 100, "(" * 100 + ")" * 100, "deeply"),
        ("+".join(["1"] * 200), "+".join(["1"] * 201), "parts"),
        ("\\alpha " * 400, "\\alpha " * 401, "parts"),
    ],
)
def test_texts_that_the_parser_is_spared(right: str, wrong: str, why: str) -> None:
    check_text(right)
    with pytest.raises(TooLarge, match=why):
        check_text(wrong)


# -- texts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "made"),
    [
        (" $x − 1.$\n", "x - 1"),
        ("\\\\frac12", "\\frac{1}{2}"),
        ("\\begin{matrix}1\\\\a\\end{matrix}", "\\begin{matrix}1\\\\a\\end{matrix}"),
        ("x \\leqslant 3", "x \\leq 3"),
        ("10{,}\\!000", "10000"),
        ("1 000 000", "1000000"),
        ("12or13", "12 or 13"),
        ("2**3", "2^3"),
        ("sqrt(2+sqrt(3))", "\\sqrt{2+\\sqrt{3}}"),
        ("sqrt(2", "sqrt(2"),
        ("90 degrees", "90"),
        ("90^{\\circ}", "90"),
        ("2pi", "2\\pi"),
        ("2t", "2{t}"),
        ("5 m", "5 m"),
        ("t", "t"),
        ("4i+3", "4 i +3"),
        ("\\mathrm{e}^2", "{e}^2"),
        ("a\\,b~c", "a b {c}"),
    ],
)
def test_notation_that_the_parser_takes(text: str, made: str) -> None:
    assert formula(text) == made
    assert formula(made) == made or "{" in made  # nothing is left to be done


@pytest.mark.parametrize(("text", "apart"), [("1 2", True), ("1 2/3", False), ("x_1 2", False), ("1.5 2", False)])
def test_integers_side_by_side(text: str, apart: bool) -> None:
    assert side_by_side(text) is apart


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\\text{\\textbf{No  Solution}}.", "no solution"),
        ('"Yes"', "yes"),
        ("(C)", "C"),
        ("b", "b"),
        ("50\\%", "50%"),
        ("\\left( a \\right)", "( a )"),
        ("", ""),
    ],
)
def test_words_without_their_markup(text: str, words: str) -> None:
    assert plain(text) == words


@pytest.mark.parametrize(
    ("gold", "answer", "same"),
    [
        ("x = 3", "x=3", True),
        ("12 3", "123", False),
        ("", "", False),
        ("B", "B) because", True),
        ("B", "\\text{B. 7}", True),
        ("B", "A) not B", False),
        ("B", "Because", False),
        ("Z", "Z) no choice goes so far", False),
    ],
)
def test_the_same_text(gold: str, answer: str, same: bool) -> None:
    assert same_text(gold, answer) is same


@given(st.text("abcXYZ \\{}$.,'0123456789", max_size=30))
def test_a_text_is_the_same_as_itself_and_in_any_case(text: str) -> None:
    assert same_text(text, text) is bool(plain(text))
    assert plain(plain(text)) == plain(text) or len(plain(text)) > 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *[("even", True), ("\\text{odd}", True), ("no solution", True), ("Jo-Ann's", True), ("cab", True)],
        *[("abc", False), ("x+y", False), ("ab", False), ("3 apples", False)],
    ],
)
def test_words_and_formulas_are_told_apart(text: str, words: bool) -> None:
    assert is_words(text) is words
