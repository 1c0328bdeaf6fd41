"""A tool's value as the text that the model reads."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Any

import pydantic_core
from pydantic import BaseModel

from agentgym.errors import ToolFault
from agentgym.tools.signals import ToolFailed

MAX_OUTPUT = 8000
"""Characters of a tool's answer; what is cut is marked."""
PLAIN_NUMBER = 10**15
"""Smaller integers are text at once."""


def written(value: Any, tool: str, limit: int = MAX_OUTPUT) -> str:
    """What `tool` returned, as text of at most `limit` characters and a mark where it is cut.

    A value that cannot be written is no mistake of the model's, which could not mend it: `ToolFault`.
    """
    if type(value) is str and len(value) <= limit and value.isascii():  # most of them
        return value
    if type(value) is int and abs(value) < PLAIN_NUMBER and limit > 20:  # to make an encoder costs more than the call
        return str(value)
    try:
        return cut(as_text(value), limit)
    except Unwritable as e:
        raise ToolFault(f"tool {tool!r} {e}; return text, numbers, lists, dicts or dataclasses") from None


class Unwritable(Exception):
    """A value that no text stands for; the text completes the sentence "the tool ..."."""


def as_text(value: Any) -> str:
    """Text as it is, everything else as JSON on one line.

    Bytes are read as UTF-8, other bytes shown as `\\xff`; numpy values, tensors, dataclasses, pydantic models, enums,
    dates, paths and sets (sorted, so that an episode can be played again) are written as what they hold; NaN and
    infinities as `NaN` and `Infinity`. Raises `Unwritable` for anything else, `ToolFailed` for a giant integer.
    """
    if type(value) is str:
        return value if value.isascii() else _whole(value)
    if isinstance(value, Enum):
        return as_text(value.value)
    if isinstance(value, str):
        return as_text(str.__str__(value))
    if isinstance(value, bytes | bytearray | memoryview):
        return _bytes(value)
    try:
        return _whole(_dumps(value))
    except ValueError as e:
        if "digits" in str(e):
            raise ToolFailed("error: the result is an integer with too many digits to write out") from None
        raise Unwritable(f"returned something that holds itself ({e})") from None
    except RecursionError:
        raise Unwritable("returned something that is nested too deeply") from None


def cut(text: str, limit: int) -> str:
    """At most `limit` characters of `text`, and how many are left out."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\n[... {len(text) - limit:,} more characters cut]"


def _dumps(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=_plain)
    except TypeError:  # keys that JSON does not have
        return json.dumps(_text_keys(value), ensure_ascii=False, default=_plain)


def _text_keys(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key if type(key) is str else as_text(key): _text_keys(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_text_keys(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    return _text_keys(_plain(value))


def _plain(value: Any) -> Any:
    """One level of a value as something that JSON has."""
    if isinstance(value, bytes | bytearray | memoryview):
        return _bytes(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return _sorted(value)
    if callable(listed := getattr(value, "tolist", None)):  # numpy, torch, array
        return listed()
    # what is made step by step may never end, and it is empty when it is read again
    if not (isinstance(value, Iterator) or inspect.isasyncgen(value) or inspect.isawaitable(value)):
        try:
            return pydantic_core.to_jsonable_python(value)
        except (ValueError, TypeError):
            if isinstance(value, BaseModel):
                return {name: getattr(value, name) for name in type(value).model_fields}
    kind = type(value)
    raise Unwritable(f"returned a {kind.__module__}.{kind.__qualname__}, which cannot be written as JSON")


def _sorted(value: Iterable[Any]) -> list[Any]:
    try:
        return sorted(value)
    except TypeError:
        return sorted(value, key=repr)


def _bytes(value: bytes | bytearray | memoryview) -> str:
    return bytes(value).decode(errors="backslashreplace")


def _whole(text: str) -> str:
    """Without halves of surrogate pairs (file names may hold them), which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text
