"""Type hints and JSON schemas in the shape that models and pydantic take."""

from __future__ import annotations

import operator
import sys
import typing
from collections.abc import Mapping
from functools import reduce
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union

import typing_extensions


def without_none(hint: Any) -> Any:
    """`T | None` -> `T`; anything else as it is."""
    if typing.get_origin(hint) in (Union, UnionType):
        rest = [part for part in typing.get_args(hint) if part is not NoneType]
        if len(rest) == 1:
            return rest[0]
    return hint


def readable(hint: Any) -> Any:
    """The hint with each `typing.TypedDict` in it made one of typing_extensions: before Python 3.12 pydantic takes no
    other."""
    if typing.is_typeddict(hint):
        return hint if sys.version_info >= (3, 12) else _typed_dict(hint)
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is None or origin is Literal:
        return hint
    if origin is Annotated:
        inner = readable(hint.__origin__)
        return hint if inner is hint.__origin__ else Annotated[(inner, *hint.__metadata__)]
    made = tuple(map(readable, parts))
    if made == parts:
        return hint
    if origin in (Union, UnionType):
        return reduce(operator.or_, made)
    return origin[made]


def _typed_dict(given: Any) -> Any:
    if type(given).__module__ != "typing":
        return given
    fields = typing.get_type_hints(given, include_extras=True)
    rows = {}
    for name, hint in fields.items():
        bare = hint.__args__[0] if typing.get_origin(hint) in (typing.Required, typing.NotRequired) else hint
        wrap = typing_extensions.Required if name in given.__required_keys__ else typing_extensions.NotRequired
        rows[name] = wrap[readable(bare)]
    make: Any = typing_extensions.TypedDict
    return make(given.__name__, rows)


def inline(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with each `$ref` replaced by what it names, so that a model reads it in place. A type that holds
    itself stays a definition."""
    named: Mapping[str, Any] = schema.get("$defs", {})
    kept: dict[str, Any] = {}

    def fill(node: Any) -> Any:
        if isinstance(node, list):
            return [fill(item) for item in node]
        if not isinstance(node, dict):
            return node
        name = str(node.get("$ref", "")).removeprefix("#/$defs/")
        if name not in named:
            return {key: fill(value) for key, value in node.items()}
        if _holds_itself(name, named):
            if name not in kept:
                kept[name] = None
                kept[name] = fill(named[name])
            return dict(node)
        beside = {key: fill(value) for key, value in node.items() if key != "$ref"}
        return {**fill(named[name]), **beside}

    filled: dict[str, Any] = fill({key: value for key, value in schema.items() if key != "$defs"})
    return {"$defs": kept, **filled} if kept else filled


def _holds_itself(name: str, named: Mapping[str, Any]) -> bool:
    seen: set[str] = set()
    ahead = [name]
    while ahead:
        for other in _refs(named[ahead.pop()]):
            if other == name:
                return True
            if other in named and other not in seen:
                seen.add(other)
                ahead.append(other)
    return False


def _refs(node: Any) -> list[str]:
    if isinstance(node, list):
        return [ref for item in node for ref in _refs(item)]
    if not isinstance(node, dict):
        return []
    own = [str(node["$ref"]).removeprefix("#/$defs/")] if isinstance(node.get("$ref"), str) else []
    return own + [ref for value in node.values() for ref in _refs(value)]
