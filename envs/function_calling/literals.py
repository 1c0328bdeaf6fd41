"""Values that a model wrote as Java or JavaScript literals: `15L`, `new int[]{1, 2}`, `{a: 'b'}`.

What is no literal of the expected kind stays text: the name of a variable, or an expression.
"""

from __future__ import annotations

import re
from typing import Any

_NUMBER = re.compile(r"[-+]?(\d[\d_]*(?:\.\d*)?|\.\d+)([eE][-+]?\d+)?([lLfFdDn])?")
_WORDS = {"true": True, "false": False, "null": None, "undefined": None}
_LIST = re.compile(
    r"""new\s+[\w.]+(<[^>]*>)?\s*(\[\s*(\d+\s*)?\]\s*)+(?P<braces>\{.*\})         # new int[]{1, 2}
      | new\s+[\w.]+(<[^>]*>)?\s*\(\s*(?P<inner>.*)\)                             # new ArrayList<>(...)
      | ([\w.]*\b(asList|of)|Array\.of)\s*\((?P<items>.*)\)                       # Arrays.asList(1, 2), List.of(1, 2)
    """,
    re.VERBOSE | re.DOTALL,
)
_MAP = re.compile(
    r"new\s+[\w.]*(Map|Hashtable)\s*(<[^{(]*>)?\s*\(\s*\)\s*(\{\s*\{(?P<puts>.*)\}\s*\})?\s*;?", re.DOTALL
)
_MAP_OF = re.compile(r"Map\.of\s*\((?P<items>.*)\)", re.DOTALL)
_MOST = 4_000  # characters; longer texts are no literals


def read_literal(text: str, kind: str) -> Any:
    """The value of a literal of `kind` (a JSON type); the text itself where it is none."""
    text = text.strip()
    if len(text) > _MOST:
        return text
    try:
        value = _value(text, 0)
    except (ValueError, RecursionError):
        return text
    fits: dict[str, tuple[type, ...]] = {
        "integer": (int,),
        "number": (int, float),
        "boolean": (bool,),
        "array": (list,),
        "object": (dict,),
        "string": (str,),
        "any": (int, float, bool, list, dict, str),
    }
    if isinstance(value, bool) and kind not in ("boolean", "any"):
        return text
    return value if isinstance(value, fits[kind]) else text


def _value(text: str, depth: int) -> Any:
    text = text.strip()
    if depth > 40:
        raise ValueError("nested too deeply")
    if text in _WORDS:
        return _WORDS[text]
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'`" and _closes(text):
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    if (number := _NUMBER.fullmatch(text)) is not None:
        return _number(text, number[3] or "")
    if text.startswith("[") and text.endswith("]"):
        return [_value(item, depth + 1) for item in _split(text[1:-1])]
    if text.startswith("{") and text.endswith("}"):
        return _object(text[1:-1], depth)
    if (found := _MAP.fullmatch(text)) is not None:
        return _puts(found["puts"] or "", depth)
    if (found := _MAP_OF.fullmatch(text)) is not None:
        flat = [_value(item, depth + 1) for item in _split(found["items"])]
        return dict(zip(map(str, flat[::2]), flat[1::2], strict=True))
    if (found := _LIST.fullmatch(text)) is not None:
        return _java_list(text, found, depth)
    raise ValueError("no literal")


def _closes(text: str) -> bool:
    """Whether the quote that a text begins with ends at its end and not before."""
    return re.fullmatch(rf"{text[0]}(\\.|[^\\{text[0]}])*{text[0]}", text, re.DOTALL) is not None


def _number(text: str, suffix: str) -> int | float:
    digits = text.rstrip("lLfFdDn").replace("_", "") if suffix else text.replace("_", "")
    if suffix in ("f", "F", "d", "D") or any(c in digits for c in ".eE"):
        return float(digits)
    return int(digits)


def _java_list(text: str, found: re.Match[str], depth: int) -> list[Any]:
    if found["braces"] is not None:
        return [_value(item, depth + 1) for item in _split(found["braces"][1:-1])]
    if found["items"] is not None:
        return [_value(item, depth + 1) for item in _split(found["items"])]
    if not re.match(r"new\s+[\w.]*(List|Set|Queue|Stack|Vector|Deque)\b", text):
        raise ValueError("the constructor of something else")
    inner = found["inner"].strip()
    value = _value(inner, depth + 1) if inner else []
    if not isinstance(value, list):
        raise ValueError("no list")
    return value


def _object(body: str, depth: int) -> dict[str, Any]:
    made = {}
    for item in _split(body):
        key, colon, value = _cut(item)
        if not colon:
            raise ValueError("no key")
        name = key.strip().strip("\"'`")
        try:
            made[name] = _value(value, depth + 1)
        except ValueError:
            made[name] = value.strip()  # the name of a variable or a function
    return made


def _puts(body: str, depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for statement in _split(body, ";"):
        if (put := re.fullmatch(r"put\s*\((.*)\)", statement.strip(), re.DOTALL)) is None:
            raise ValueError("no put")
        key, value = _split(put[1])
        name = str(_value(key, depth + 1))
        try:
            made[name] = _value(value, depth + 1)
        except ValueError:
            made[name] = value.strip()
    return made


def _cut(item: str) -> tuple[str, str, str]:
    parts = _split(item, ":", keep_empty=True)
    return parts[0], ":" if len(parts) > 1 else "", ":".join(parts[1:])


def _split(body: str, at: str = ",", keep_empty: bool = False) -> list[str]:
    """Split at a character that stands in no bracket and no quotes; raises `ValueError` where those do not close."""
    parts, start, depth, quote, i = [], 0, 0, "", 0
    while i < len(body):
        c = body[i]
        if quote:
            if c == "\\":
                i += 1
            elif c == quote:
                quote = ""
        elif c in "\"'`":
            quote = c
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        elif c == at and depth == 0:
            parts.append(body[start:i])
            start = i + 1
        i += 1
    if depth or quote:
        raise ValueError("it does not close")
    parts.append(body[start:])
    return parts if keep_empty else [part for part in parts if part.strip()]
