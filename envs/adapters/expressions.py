"""Texts that are safe to hand to code which evaluates them: data for `eval`, small sums for sympy's `parse_expr`."""

from __future__ import annotations

import ast
import math

MAX_TEXT = 2000
MAX_BITS = 4096
MAX_EXPONENT_BITS = 6
"""An exponent is below 64 in size."""
MAX_EXP_BITS = 10
"""What `exp` is taken of is below 1024 in size."""
FUNCTIONS = frozenset(
    [
        *("sin", "cos", "tan", "sec", "csc", "cot", "asin", "acos", "atan", "sinh", "cosh", "tanh"),
        *("exp", "log", "ln", "sqrt", "Abs", "abs", "Rational"),
    ]
)
_GROWING = ("exp", "sinh", "cosh")
_DATA = (ast.Expression, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.Constant, ast.Load)
_SIGNS = (ast.UAdd, ast.USub)
_Bits = tuple[int, int]
"""Upper bounds of the bits of a value's numerator and denominator; a variable has none, it stays as it is."""


class _TooMuch(Exception):
    """More than small arithmetic."""


def plain_data(text: str) -> bool:
    """Whether `eval(text)` can do nothing but build a number, a text, or a list, tuple, set or dict of such.

    True also where `text` is no Python: `eval` then raises before anything runs.
    """
    if len(text) > MAX_TEXT:
        return False
    try:
        tree = compile(text, "<text>", "eval", ast.PyCF_ONLY_AST)
    except (SyntaxError, ValueError):
        return True
    except (MemoryError, RecursionError):  # too deep for a tree is not too deep for `eval`
        return False
    signed = [node for node in ast.walk(tree) if isinstance(node, ast.UnaryOp)]
    if not all(isinstance(node.op, _SIGNS) and isinstance(node.operand, ast.Constant) for node in signed):
        return False
    return all(isinstance(node, (*_DATA, ast.UnaryOp, *_SIGNS)) for node in ast.walk(tree))


def small_arithmetic(text: str) -> bool:
    """Whether sympy's `parse_expr(text)`, its number included, is a small computation and nothing else.

    True for sums, products, quotients and small powers of numbers, variables and the usual functions (`FUNCTIONS`).
    False for all other text. For text that is no Python, too, as sympy's own notations (`5!`, `0.[3]`, `lambda x`)
    make Python of it; and for texts in quotes, which sympy evaluates once more (`diff` of a text parses it).
    """
    if len(text) > MAX_TEXT:
        return False
    try:
        top, bottom = _bits(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, MemoryError, RecursionError, _TooMuch):
        return False
    return top + bottom <= MAX_BITS


def _bits(node: ast.AST) -> _Bits:
    if isinstance(node, ast.Constant):
        return _number(node.value)
    if isinstance(node, ast.Name):
        return _name(node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, _SIGNS):
        return _bits(node.operand)
    if isinstance(node, ast.BinOp):
        return _checked(_operation(node.op, _bits(node.left), _bits(node.right)))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return _checked(_call(node.func.id, [_bits(argument) for argument in node.args]))
    raise _TooMuch


def _number(value: object) -> _Bits:
    if isinstance(value, int):
        return value.bit_length(), 0
    if isinstance(value, float) and math.isfinite(value):
        exponent = math.frexp(value)[1]
        return max(exponent, 0), max(1 - exponent, 0)
    raise _TooMuch


def _name(name: str) -> _Bits:
    if "__" in name:
        raise _TooMuch
    variable = len(name) == 1 and name not in "EI"
    return (0, 0) if variable else (2, 2)  # pi and E are below 4


def _operation(op: ast.operator, left: _Bits, right: _Bits) -> _Bits:
    (top, bottom), (other_top, other_bottom) = left, right
    if isinstance(op, ast.Add | ast.Sub):
        return max(top + other_bottom, other_top + bottom) + 1, bottom + other_bottom
    if isinstance(op, ast.Mult):
        return top + other_top, bottom + other_bottom
    if isinstance(op, ast.Div | ast.FloorDiv | ast.Mod):
        return top + other_bottom, bottom + other_top
    if isinstance(op, ast.Pow) and other_top <= MAX_EXPONENT_BITS:
        return (max(top, bottom) * 2**other_top,) * 2  # the exponent may be negative
    raise _TooMuch


def _call(name: str, arguments: list[_Bits]) -> _Bits:
    if name not in FUNCTIONS:
        raise _TooMuch
    top = sum(top for top, _ in arguments)
    if name not in _GROWING:
        return (top + sum(bottom for _, bottom in arguments) + 4,) * 2
    if top > MAX_EXP_BITS:
        raise _TooMuch
    return (2 * 2**top,) * 2


def _checked(bits: _Bits) -> _Bits:
    if sum(bits) > MAX_BITS:
        raise _TooMuch
    return bits
