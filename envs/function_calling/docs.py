"""Functions as the Berkeley leaderboard (BFCL) describes them, turned into tools that a chat model can be given.

Its docs look like OpenAI's, but their types are those of Python, Java or JavaScript and their names may have dots.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

KINDS: Mapping[str, str] = {
    **dict.fromkeys(("string", "String", "char", "str"), "string"),
    **dict.fromkeys(("integer", "int", "Integer", "long", "Long", "short", "byte", "Bigint", "BigInteger"), "integer"),
    **dict.fromkeys(("float", "double", "number", "Float", "Double", "Number"), "number"),
    **dict.fromkeys(("boolean", "Boolean", "bool"), "boolean"),
    **dict.fromkeys(("array", "Array", "list", "List", "ArrayList", "tuple", "Set", "Queue", "Stack"), "array"),
    **dict.fromkeys(("dict", "object", "HashMap", "Hashtable", "Map", "Object"), "object"),
    **dict.fromkeys(("any", "Any", ""), "any"),
}
"""Type name of a doc -> JSON type; "any" takes everything."""
_LONGEST_NAME = 64  # OpenAI's limit
_KEPT = ("description", "enum", "default", "format", "minimum", "maximum", "minItems", "maxItems")


@dataclass(frozen=True)
class Function:
    """One documented function. `name` is what a model calls, `own_name` what the doc and the answers call it."""

    name: str
    own_name: str
    doc: Mapping[str, Any]
    language: str = "python"

    @cached_property
    def parameters(self) -> Mapping[str, Mapping[str, Any]]:
        properties: Mapping[str, Mapping[str, Any]] = self.doc["parameters"].get("properties") or {}
        return properties

    @cached_property
    def required(self) -> tuple[str, ...]:
        return tuple(self.doc["parameters"].get("required") or ())

    @cached_property
    def schema(self) -> Mapping[str, Any]:
        """OpenAI function schema."""
        parameters = to_json_schema(self.doc["parameters"])
        parameters.setdefault("properties", {})
        told = "" if self.language == "python" else f" Values may be written as {self.language} literals."
        function = {
            "name": self.name,
            "description": str(self.doc.get("description", "")) + told,
            "parameters": parameters,
        }
        return {"type": "function", "function": function}


def read_functions(docs: Any, language: str = "python") -> tuple[Function, ...]:
    """A row's docs -> functions with legal names, no two alike; raises `ValueError` naming what is wrong."""
    if isinstance(docs, Mapping):
        docs = [docs]
    if not isinstance(docs, list):
        raise ValueError(f"'function': expected a list of function docs, got {type(docs).__name__}")
    names: set[str] = set()
    functions = []
    for i, doc in enumerate(docs):
        if not isinstance(doc, Mapping) or not isinstance(doc.get("name"), str) or not doc["name"]:
            raise ValueError(f"'function'[{i}]: no name")
        if not isinstance(doc.get("parameters"), Mapping):
            raise ValueError(f"'function'[{i}] ({doc['name']}): no parameters")
        check_types(doc["parameters"], doc["name"])
        name = _legal(doc["name"], names)
        names.add(name)
        functions.append(Function(name, doc["name"], doc, language))
    return tuple(functions)


def _legal(name: str, taken: Iterable[str]) -> str:
    legal = wanted = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:_LONGEST_NAME]
    number = 2
    while legal in taken:
        legal = f"{wanted[: _LONGEST_NAME - 4]}_{number}"
        number += 1
    return legal


def kind_of(spec: Mapping[str, Any]) -> str:
    """The JSON type of a parameter's doc."""
    return KINDS[str(spec.get("type", "any"))]


def check_types(spec: Any, where: str) -> None:
    """Raise `ValueError` where a doc or something nested in it has a type that is not known."""
    if not isinstance(spec, Mapping):
        raise ValueError(f"{where}: expected a description with a type, got {spec!r}")
    name = spec.get("type", "any")
    if not isinstance(name, str) or name not in KINDS:
        known = ", ".join(kind for kind in KINDS if kind)
        raise ValueError(f"{where}: unknown type {name!r} (known: {known})")
    for key, inner in (spec.get("properties") or {}).items():
        check_types(inner, f"{where}.{key}")
    if "items" in spec:
        check_types(spec["items"], f"{where}[]")


def to_json_schema(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A doc's parameter description as JSON schema: its types renamed, what JSON schema does not know left out."""
    kind = kind_of(spec)
    schema: dict[str, Any] = {} if kind == "any" else {"type": kind}
    schema |= {key: spec[key] for key in _KEPT if key in spec}
    if (properties := spec.get("properties")) is not None:
        schema["properties"] = {name: to_json_schema(inner) for name, inner in properties.items()}
        if required := spec.get("required"):
            schema["required"] = list(required)
    if kind == "array":
        schema["items"] = to_json_schema(spec.get("items") or {})
    return schema
