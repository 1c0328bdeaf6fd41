"""Arguments that a format carries as bare text, typed by the tool's schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agentgym.rollout.parsers.literals import read_literal
from agentgym.rollout.parsers.scan import BadJson, load_json

_MISSING = object()
_ALIASES = {  # schemas that were made by hand
    "str": "string",
    "text": "string",
    "int": "integer",
    "float": "number",
    "double": "number",
    "bool": "boolean",
    "dict": "object",
    "map": "object",
    "list": "array",
    "tuple": "array",
    "None": "null",
}
_LONG = 1 << 16  # a value longer than this is not tried as Python


def kinds_of(tools: Sequence[Mapping[str, Any]], name: str, parameter: str) -> frozenset[str]:
    """The JSON types that a tool's parameter may have; empty where nothing says so. Takes any shape of schema."""
    for tool in tools:
        function = tool.get("function", tool)
        if not isinstance(function, Mapping) or function.get("name") != name:
            continue
        schema = function.get("parameters", function.get("input_schema"))
        properties = schema.get("properties") if isinstance(schema, Mapping) else None
        row = properties.get(parameter) if isinstance(properties, Mapping) else None
        if isinstance(row, Mapping):
            definitions = schema.get("$defs", {}) if isinstance(schema, Mapping) else {}
            return frozenset(_kinds(row, definitions, 0))
    return frozenset()


def knows(tools: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Whether there is a tool of that name."""
    functions = [tool.get("function", tool) for tool in tools]
    return any(isinstance(function, Mapping) and function.get("name") == name for function in functions)


def typed(text: str, kinds: frozenset[str]) -> Any:
    """The value that `text` means: text stays text where the schema has only text; else JSON, or else Python, if it
    is of a type the schema has. Where the schema says nothing, JSON that is not a string. What does not fit stays
    text: the tool's own check then tells the model."""
    if kinds == {"string"}:
        return text
    value = _json(text)
    if not kinds:
        return text if value is _MISSING or isinstance(value, str) else value
    if value is _MISSING and "string" not in kinds:
        value = _python(text)
    for kind in sorted(kinds - {"string"}):
        if _fits(value, kind):
            return int(value) if kind == "integer" and "number" not in kinds else value
    if value is _MISSING or "string" in kinds:
        return text
    return value


def _kinds(schema: Mapping[str, Any], definitions: Any, depth: int) -> set[str]:
    found: set[str] = set()
    kind = schema.get("type")
    for item in [kind] if isinstance(kind, str) else kind if isinstance(kind, list) else []:
        if isinstance(item, str):
            found.add(_ALIASES.get(item, item))
    if depth > 8:
        return found
    for key in ("anyOf", "oneOf", "allOf"):
        options = schema.get(key)
        for option in options if isinstance(options, list) else []:
            if isinstance(option, Mapping):
                found |= _kinds(option, definitions, depth + 1)
    reference = schema.get("$ref")
    if isinstance(reference, str) and isinstance(definitions, Mapping):
        target = definitions.get(reference.rpartition("/")[2])
        if isinstance(target, Mapping):
            found |= _kinds(target, definitions, depth + 1)
    values = schema.get("enum") if not found else None
    if isinstance(values, list) and values and all(isinstance(value, str) for value in values):
        found.add("string")
    return found


def _fits(value: Any, kind: str) -> bool:
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "null":
        return value is None
    if kind in ("integer", "number"):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        return kind == "number" or value == int(value)
    wanted = {"array": list, "object": dict}.get(kind)
    return wanted is not None and isinstance(value, wanted)


def _json(text: str) -> Any:
    try:
        return load_json(text)
    except BadJson:
        return _MISSING


def _python(text: str) -> Any:
    try:
        return read_literal(text) if len(text) <= _LONG else _MISSING
    except ValueError:
        return _MISSING
