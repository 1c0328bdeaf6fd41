"""Whether two values are equal as mathematics: math-verify on sympy. Runs in a worker that may be killed at any time.

math-verify decides; around it stand what it does not look after: values too large to compute (`TooLarge`, told before
sympy tries), texts, and verdicts of equality that a look at the numbers refutes.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import sympy  # type: ignore[import-untyped]
from math_verify import parse, verify
from math_verify.parser import LatexExtractionConfig, normalize_latex, parse_latex_cached
from sympy.core.function import AppliedUndef  # type: ignore[import-untyped]
from sympy.logic.boolalg import BooleanAtom  # type: ignore[import-untyped]

from agentgym.envs.verifiers.math.size import TooLarge, check_size, check_text
from agentgym.envs.verifiers.math.wording import formula, is_words, plain, same_text, side_by_side

LATEX = LatexExtractionConfig().normalization_config
RELATIVE = 1e-5


def gold_readable(gold: str, prose: bool) -> bool:
    """Whether a gold is something to compare with: a formula, a value in prose, or a text without LaTeX."""
    meant = read_gold(gold, prose)
    return meant is None or bool(meant) or (not prose and "\\" not in (text := plain(gold)) and bool(text))


def compare(gold: str, gold_prose: bool, answer: str, answer_prose: bool) -> str:
    """The name of an outcome: correct, incorrect, unparsable (the answer), timeout (too large)."""
    if not (gold_prose or answer_prose):
        if same_text(gold, answer):
            return "correct"
        if is_words(gold):
            return "incorrect"
    meant = read_gold(gold, gold_prose)
    if not meant:
        # a gold that is no formula is a text; what is not that text is not it
        return "incorrect"
    try:
        said = read(answer, answer_prose)
    except TooLarge:
        return "timeout"
    if not said:
        return "unparsable"
    return "correct" if any(equal(a, b) for a in meant for b in said) else "incorrect"


@lru_cache(maxsize=256)
def read_gold(text: str, prose: bool) -> tuple[Any, ...] | None:
    """None for one that is too large to compute: it can only be met by its own text."""
    try:
        return read(text, prose)
    except TooLarge:
        return None


def read(text: str, prose: bool) -> tuple[Any, ...]:
    """The sympy objects that a text may mean, the likeliest first; empty where it is none. Raises `TooLarge`."""
    if prose:
        found = [item for item in parse(text, parsing_timeout=None) if not isinstance(item, str)]
    else:
        check_text(text)
        found = _formula(formula(text))
    for item in found:
        check_size(item)
    return tuple(_imaginary(item) for item in found)


def _imaginary(value: Any) -> Any:
    """The parser leaves the imaginary unit a symbol."""
    units = [symbol for symbol in value.free_symbols if symbol.name == "i"]
    found = value.subs(dict.fromkeys(units, sympy.I)) if units else value
    return value if isinstance(found, BooleanAtom) else found  # e^{i pi} = -1 would become `True`


def _formula(text: str) -> list[Any]:
    if not text or side_by_side(text):
        return []
    try:
        value = parse_latex_cached(normalize_latex(text, LATEX))
    except TooLarge:
        raise
    except Exception:  # whatever the parser meets in it: this text is no formula
        return []
    return [] if value is None else [value]


def equal(gold: Any, answer: Any) -> bool:
    if isinstance(gold, sympy.Basic) and isinstance(answer, sympy.Basic) and _form(gold) == _form(answer):
        return not (gold.has(sympy.nan) or gold.has(sympy.zoo))
    if not _verified(gold, answer):
        renamed = _renamed(gold, answer)
        return renamed is not None and _verified(gold, renamed)
    return not _refuted(gold, answer)


def _form(value: Any) -> str:
    """The value as written, but for the order of sums, products and sets: a quick proof that two are the same."""
    if not value.args:
        # in base 16, for Python refuses to write a number of more than 4300 digits in base 10
        written = f"{value.p:x}/{value.q:x}" if isinstance(value, sympy.Rational) else str(value)
        return f"{type(value).__name__}:{written}"
    parts = [_form(part) for part in value.args]
    if isinstance(value, (sympy.Add, sympy.Mul, sympy.FiniteSet)):
        parts.sort()
    return f"{value.func.__name__}({','.join(parts)})"


def _verified(gold: Any, answer: Any) -> bool:
    return bool(verify(gold, answer, timeout_seconds=None, allow_set_relation_comp=True))


def _renamed(gold: Any, answer: Any) -> Any:
    """`answer` with the argument of the function that it defines named as in `gold`: f(n) = 2n is f(x) = 2x."""
    a, b = _arguments(gold), _arguments(answer)
    if len(a) != 1 or len(b) != 1 or a == b or a & answer.free_symbols:
        return None
    return answer.subs(b.pop(), a.pop())


def _arguments(value: Any) -> set[Any]:
    """The symbols of which functions are defined in equations f(x) = ..."""
    equations = value.atoms(sympy.Eq) if isinstance(value, sympy.Basic) else ()
    calls = [equation.lhs for equation in equations if isinstance(equation.lhs, AppliedUndef)]
    return {argument for call in calls for argument in call.args if argument.is_Symbol}


def _refuted(gold: Any, answer: Any) -> bool:
    """Numbers that agree only because both are small, and equations that agree only because neither has a solution."""
    try:
        if isinstance(gold, sympy.Expr) and isinstance(answer, sympy.Expr) and not isinstance(gold, sympy.MatrixBase):
            return not (gold.free_symbols or answer.free_symbols) and _far_apart(gold, answer)
        if isinstance(gold, sympy.Eq) and isinstance(answer, sympy.Eq):
            return gold != answer and not _same_zeros(gold, answer)
    except Exception:  # sympy could not say: then the verdict stands
        return False
    return False


def _far_apart(gold: Any, answer: Any) -> bool:
    a, b = _value(gold), _value(answer)
    if abs(a - b) <= RELATIVE * max(abs(a), abs(b)):
        return False
    # 9% is 9, and 0.09
    return min(abs(a - 100 * b), abs(a * 100 - b)) > RELATIVE * 100 * max(abs(a), abs(b))


def _value(number: Any) -> complex:
    """About its value: 0 where no digit could be told, as of 1 - 1 or sin(pi), whose noise is no number."""
    parts = number.evalf(20).as_real_imag()
    return complex(*(0.0 if part.is_Float and part._prec == 1 else _float(part) for part in parts))


def _float(part: Any) -> float:
    """What is too small for a float is not 0 for that."""
    return float(part) or (math.copysign(5e-324, part) if part else 0.0)


def _same_zeros(gold: Any, answer: Any) -> bool:
    a, b = gold.lhs - gold.rhs, answer.lhs - answer.rhs
    if not (a.free_symbols and b.free_symbols):
        return True
    ratio = sympy.cancel(a / b)
    if not ratio.free_symbols and ratio != 0:
        return True
    return bool(sympy.solve(gold, list(gold.free_symbols)))
