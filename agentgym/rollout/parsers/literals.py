"""Values written as Python: literals only, and only those that JSON has too."""

from __future__ import annotations

import ast
import math
import warnings
from typing import Any

_CONSTANTS = {"true": True, "false": False, "null": None}
_MAX_BITS = 14_000  # of an integer; more than about 4300 digits Python itself refuses to print


def parse_expression(source: str) -> ast.expr:
    """The expression; raises `ValueError` saying what is wrong with it."""
    try:
        if "\\" not in source:
            return ast.parse(source.strip(), mode="eval").body
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\\d" in a model's string is no fault of the user's program
            return ast.parse(source.strip(), mode="eval").body
    except SyntaxError as e:
        raise ValueError(f"invalid Python: {e.msg}") from None
    except ValueError as e:  # a NUL, or a number of too many digits
        raise ValueError(f"invalid Python: {str(e).partition(';')[0]}") from None
    except (RecursionError, MemoryError, SystemError):  # the last: Python 3.11 where another parse ran within it
        raise ValueError("invalid Python: it is nested too deeply") from None


def literal(node: ast.expr) -> Any:
    """The value of a literal (a tuple is a list); raises `ValueError` for all else."""
    if isinstance(node, ast.Constant):
        return _constant(node.value)
    if isinstance(node, (ast.List, ast.Tuple)):
        return [literal(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        return dict(_pair(key, value) for key, value in zip(node.keys, node.values, strict=True))
    if isinstance(node, ast.Name) and node.id in _CONSTANTS:
        return _CONSTANTS[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        value = literal(node.operand) if isinstance(node.operand, ast.Constant) else None
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return -value if isinstance(node.op, ast.USub) else value
    raise ValueError(f"values must be literals, not {type(node).__name__}")


def read_literal(source: str) -> Any:
    """The value that `source` writes; raises `ValueError`."""
    try:
        return literal(parse_expression(source))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _constant(value: object) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int) and value.bit_length() <= _MAX_BITS:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise ValueError("values must be text, numbers (not too large), True, False, None, lists or dicts")


def _pair(key: ast.expr | None, value: ast.expr) -> tuple[str, Any]:
    name = literal(key) if key is not None else None
    if not isinstance(name, str):
        raise ValueError("the keys of a dict must be text")
    return name, literal(value)
