"""Texts that are safe to hand to code which evaluates them: literals, and arithmetic that stays small."""

from __future__ import annotations

import ast

MAX_TEXT = 2000
MAX_EXPONENT = 32
MAX_BASE = 10**6
FUNCTIONS = frozenset(
    [
        *("sin", "cos", "tan", "sec", "csc", "cot", "asin", "acos", "atan", "sinh", "cosh", "tanh"),
        *("exp", "log", "ln", "sqrt", "Abs", "abs", "Rational", "pi", "E"),
    ]
)
_LITERALS = (ast.Expression, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.Constant, ast.Load)
_ARITHMETIC = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.Constant, ast.Name, ast.Call, ast.Load),
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.UAdd, ast.USub),
)


def harmless(text: str) -> bool:
    """Whether `text`, evaluated as Python or by sympy, can do nothing but compute a small value.

    True for literals (numbers, texts, lists, ...), for arithmetic of numbers, variables and the usual functions with
    small exponents, and for text that is no Python at all and holds none of the signs that could make it so.
    """
    if len(text) > MAX_TEXT:
        return False
    try:
        tree = ast.parse(text.strip().replace("^", "**"), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return not any(sign in text for sign in "()_@`\\=:!") or text.replace("\n", " ").replace(",", " ").isalnum()
    nodes = list(ast.walk(tree))
    if all(isinstance(node, _LITERALS) for node in nodes):
        return True
    return all(isinstance(node, _ARITHMETIC) and _small(node) for node in nodes)


def _small(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS and not node.keywords
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float)
    if isinstance(node, ast.Name):
        return "__" not in node.id
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return (
            _exponent(node.right)
            and not any(
                isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.Pow) for inner in ast.walk(node.right)
            )
            and _base(node.left)
        )
    return True


def _exponent(node: ast.AST) -> bool:
    numbers = [inner.value for inner in ast.walk(node) if isinstance(inner, ast.Constant)]
    return all(isinstance(value, int | float) and abs(value) <= MAX_EXPONENT for value in numbers) and not any(
        isinstance(inner, ast.Mult) for inner in ast.walk(node)
    )


def _base(node: ast.AST) -> bool:
    inner = list(ast.walk(node))
    numbers = [part.value for part in inner if isinstance(part, ast.Constant)]
    small = all(isinstance(value, int | float) and abs(value) <= MAX_BASE for value in numbers)
    return small and not any(isinstance(part, ast.Pow) for part in inner)
