"""How large a value would get if it were computed, told from its form alone.

Answers such as 9^(9^(9^9)) or 1000000! cost seconds and gigabytes; what is found here costs neither.
"""

from __future__ import annotations

import math
import re
from typing import Any

import sympy  # type: ignore[import-untyped]
from sympy import Integer, Pow, Rational, factorial
from sympy.core.function import AppliedUndef  # type: ignore[import-untyped]

MAX_BITS = 40_000.0
"""Of a number; about 12,000 digits."""
MAX_DIGITS = 1_000
MAX_DEPTH = 60
MAX_PARENTHESES = 12
"""One in another: the parser takes 0.1 s for each."""
MAX_WORDS = 400
"""Numbers, letters, commands and signs of a formula: the parser takes 0.5 s for 300."""
MAX_NODES = 4_000
MAX_TERMS = 500
"""Of an expansion: (a + b + c)^n has so many."""

_GROWING = (Rational, Pow, factorial, sympy.factorial2, sympy.binomial, sympy.exp)
_LONG_NUMBER = re.compile(rf"\d{{{MAX_DIGITS}}}")
_WORD = re.compile(r"\\[a-zA-Z]+|[\d.]+|[^\s{}]")


class TooLarge(ValueError):
    """No answer of this size is ever compared."""


def check_text(text: str) -> None:
    """Raise `TooLarge` for a text that the parser does not get to the end of in its time."""
    if _LONG_NUMBER.search(text):
        raise TooLarge("a number with too many digits")
    if _depth(text, "{", "}") > MAX_DEPTH or _depth(text, "([", ")]") > MAX_PARENTHESES:
        raise TooLarge("nested too deeply")
    if len(_WORD.findall(text)) > MAX_WORDS:
        raise TooLarge("too many parts")


def _depth(text: str, opening: str, closing: str) -> int:
    depth = deepest = 0
    for letter in text:
        if letter in opening:
            depth += 1
            deepest = max(deepest, depth)
        elif letter in closing and depth:
            depth -= 1
    return deepest


def check_size(value: Any) -> None:
    """Raise `TooLarge` where computing `value` would make a number of more than `MAX_BITS`, or too many terms."""
    for nodes, node in enumerate(sympy.preorder_traversal(value)):
        if nodes > MAX_NODES:
            raise TooLarge("too many parts")
        if isinstance(node, sympy.Expr) and not isinstance(node, sympy.MatrixBase):
            _check_node(node)


def _check_node(node: Any) -> None:
    # a Rational too: the parser computes binomials itself
    if isinstance(node, _GROWING) and not node.free_symbols:
        if _bits(node) > MAX_BITS:
            raise TooLarge("a number with too many digits")
    elif isinstance(node, (Pow, sympy.Mul)) and _terms(node) > MAX_TERMS:
        raise TooLarge("too many terms")


def _terms(node: Any) -> float:
    """How many terms the expansion of `node` has, at most."""
    if isinstance(node, sympy.Add):
        return float(sum(_terms(arg) for arg in node.args))
    if isinstance(node, sympy.Mul):
        return math.prod(_terms(arg) for arg in node.args)
    if isinstance(node, Pow) and (terms := _terms(node.base)) > 1 and not node.exp.free_symbols:
        if isinstance(node.exp, Rational) and not isinstance(node.exp, Integer):
            return 1.0
        power = min(float(abs(int(node.exp))) if isinstance(node.exp, Integer) else _size(node.exp), 1e6)
        # (n + t - 1 choose n), told by its logarithm
        return math.exp(min(math.lgamma(power + terms) - math.lgamma(terms) - math.lgamma(power + 1), 50.0))
    return 1.0


def _size(node: Any) -> float:
    """About how large, as a float; infinite where that is not clear."""
    bits = _bits(node)
    return 2.0**bits if bits < 1000 else math.inf


def _bits(node: Any) -> float:
    """An upper bound of log2 |node| for what is made of numbers, 64 for anything else."""
    if isinstance(node, Integer):
        return float(max(abs(int(node)).bit_length(), 0.1))
    if isinstance(node, Rational):
        return float(max(abs(int(node.p)).bit_length(), int(node.q).bit_length()))
    if isinstance(node, sympy.Float):
        return _of_float(node)
    if node.free_symbols or isinstance(node, AppliedUndef):
        return 3.0
    if isinstance(node, Pow):
        exponent = _bits(node.exp)
        if exponent > 60:
            return math.inf if _bits(node.base) > 1 else 1.0
        return _bits(node.base) * max(_size(node.exp), 1.0)
    if isinstance(node, sympy.exp):
        return math.inf if _bits(node.args[0]) > 60 else 1.5 * _size(node.args[0])
    if isinstance(node, (factorial, sympy.factorial2)):
        size = min(_size(node.args[0]), 1e300)
        return size * max(math.log2(size + 1), 1.0)
    if isinstance(node, sympy.binomial):
        top, chosen = (min(_size(arg), 1e300) for arg in node.args)
        return min(top, chosen * max(math.log2(top + 1), 1.0))
    if isinstance(node, sympy.Mul):
        return sum(_bits(arg) for arg in node.args)
    if isinstance(node, sympy.Add):
        return max(_bits(arg) for arg in node.args) + math.log2(len(node.args))
    if node.args and isinstance(node, sympy.core.expr.UnevaluatedExpr):
        return _bits(node.args[0])
    return 64.0 if node.args else 3.0


def _of_float(node: Any) -> float:
    size = abs(float(node))
    return max(math.log2(size), 1.0) if size and math.isfinite(size) else 1024.0 if size else 1.0
