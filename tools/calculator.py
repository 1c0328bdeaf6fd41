"""The calculator: exact arithmetic on an expression's syntax tree. Never `eval`; bounded in size and time."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable
from typing import TypeAlias

from agentgym.tools.decorator import BadArguments, tool

Number: TypeAlias = int | float

MAX_CHARS = 500
MAX_BITS = 4096
"""Bits of any integer on the way; more is refused before it is computed."""
MAX_DEPTH = 50
_CHARACTERS = re.compile(r"[0-9.eE+\-*/%()_\s]*")

_UNKNOWN = "only numbers, + - * / // % ** and parentheses are understood"
_BINARY: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_UNARY: dict[type[ast.unaryop], Callable[[Number], Number]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}


class CalculatorError(BadArguments):
    """An expression that the calculator does not compute; the text says why."""


def calculate(expression: str) -> Number:
    """The value of an arithmetic expression: + - * / // % **, parentheses, integers and decimals.

    Integers are exact, and so is a division that comes out even. Raises `CalculatorError`.
    """
    if len(expression) > MAX_CHARS:
        raise CalculatorError(f"the expression is longer than {MAX_CHARS} characters")
    if not _CHARACTERS.fullmatch(expression):
        raise CalculatorError(_UNKNOWN)
    try:
        tree = ast.parse(expression.strip(), mode="eval")
        return _value(tree.body, MAX_DEPTH)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        if isinstance(e, CalculatorError):
            raise
        raise CalculatorError(f"cannot read {_short(expression)!r} as arithmetic") from None
    except ZeroDivisionError:
        raise CalculatorError("division by zero") from None
    except OverflowError:
        raise CalculatorError("the number is too large") from None


def _value(node: ast.expr, depth: int) -> Number:
    if depth == 0:
        raise CalculatorError("the expression is nested too deeply")
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return _bounded(node.value)
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left, depth - 1), _value(node.right, depth - 1)
        if isinstance(node.op, ast.Pow):
            return _power(left, right)
        if isinstance(node.op, ast.Div) and type(left) is int and type(right) is int and right and left % right == 0:
            return left // right
        if compute := _BINARY.get(type(node.op)):
            return _bounded(compute(left, right))
    if isinstance(node, ast.UnaryOp) and (apply := _UNARY.get(type(node.op))):
        return apply(_value(node.operand, depth - 1))
    raise CalculatorError(_UNKNOWN)


def _power(base: Number, exponent: Number) -> Number:
    if type(base) is int and type(exponent) is int and exponent * (abs(base) - 1).bit_length() > MAX_BITS:
        raise CalculatorError("the number is too large")
    value = base**exponent
    if isinstance(value, complex):
        raise CalculatorError("the result is not a real number")
    return _bounded(value)


def _bounded(value: Number) -> Number:
    fits = value.bit_length() <= MAX_BITS if isinstance(value, int) else math.isfinite(value)
    if not fits:
        raise CalculatorError("the number is too large")
    return value


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


@tool
def calculator(expression: str) -> str:
    """Compute an arithmetic expression such as 3*(4+5)/2. Operators: + - * / // % ** and parentheses.

    Args:
        expression: the expression, numbers only
    """
    return str(calculate(expression))
