"""A function's parameters as a JSON schema, and the checking of a model's arguments against them."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo

from agentgym.errors import ToolError
from agentgym.tools.hints import inline, readable, without_none

_BY_PLACE: dict[Any, str] = {
    inspect.Parameter.VAR_POSITIONAL: "*",
    inspect.Parameter.VAR_KEYWORD: "**",
    inspect.Parameter.POSITIONAL_ONLY: "",
}
_PROBLEMS = 8  # of a call that are told
_EXACT = (str, int, float, bool)  # types for which `type(value) is hint` needs no further checking


class BadArguments(ValueError):
    """Arguments that do not fit a tool's schema; the text is written for the model that sent them."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a tool takes. `injected` parameters are filled in by the env and hidden from the schema."""

    tool: str
    summary: str
    names: tuple[str, ...]
    required: frozenset[str]
    injected: Mapping[str, str]
    """Parameter -> what it is given, by the name in `of`'s `inject`."""
    schema: Mapping[str, Any]
    _exact: Mapping[str, type | None]
    _model: type[BaseModel]

    @classmethod
    def of(cls, fn: Callable[..., Any], tool: str, inject: Mapping[str, type]) -> Parameters:
        """Read a function's signature and docstring; raises `ToolError` naming tool and argument.

        inject: name -> the annotation of the parameters that are filled in by the env.
        """
        hints = _hints(fn, tool)
        summary, described = parse_docstring(inspect.getdoc(fn) or "")
        fields: dict[str, Any] = {}
        names: list[str] = []
        injected: dict[str, str] = {}
        required: set[str] = set()
        for name, parameter in inspect.signature(fn).parameters.items():
            hint = _hint(hints, parameter, tool)
            if source := _source(hint, inject):
                injected[name] = source
                continue
            if isinstance(parameter.default, FieldInfo):
                raise ToolError(
                    f"tool {tool!r}: argument {name!r} has a Field as its default; write Annotated[..., Field(...)]"
                )
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            if default is ...:
                required.add(name)
            # the aliases keep names such as `schema` or `_x` from clashing with those of the model class
            told: dict[str, Any] = {"description": described[name]} if name in described else {}
            field = Field(default, alias=name, **told)
            fields[f"a{len(names)}"] = (readable(hint), field)
            names.append(name)
        model, schema = _model_and_schema(tool, fields)
        exact = {name: hints[name] if hints[name] in _EXACT else None for name in names}
        return cls(tool, summary, tuple(names), frozenset(required), injected, schema, exact, model)

    def check(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments, coerced, without those left to their default; raises `BadArguments`."""
        exact = self._exact
        for name, value in arguments.items():
            if type(value) is not exact.get(name):
                break
        else:
            if len(arguments) == len(exact) or self.required <= arguments.keys():
                return dict(arguments)
        try:
            model = self._model.model_validate(dict(arguments))
        except ValidationError as e:
            raise BadArguments(self._explain(e, arguments)) from None
        fields = model.model_fields_set
        return {name: getattr(model, f"a{i}") for i, name in enumerate(self.names) if f"a{i}" in fields}

    def _explain(self, error: ValidationError, given: Mapping[str, Any]) -> str:
        missing: list[str] = []
        unknown: list[str] = []
        wrong: dict[str, tuple[Any, list[str]]] = {}
        for item in error.errors(include_url=False, include_context=False):
            name = _path(item["loc"], given, whole=item["type"] in ("missing", "extra_forbidden"))
            if item["type"] == "missing":
                missing.append(f"argument {name!r} is missing")
            elif item["type"] == "extra_forbidden":
                unknown.append(f"there is no argument {_short(name)}")
            else:  # one for each type of a union
                wrong.setdefault(name, (item["input"], []))[1].append(_lower(item["msg"]))
        problems = missing + unknown
        for name, (value, reasons) in wrong.items():
            problems.append(f"argument {name!r}: {' or '.join(dict.fromkeys(reasons))}, got {_short(value)}")
        if len(problems) > _PROBLEMS:
            problems = [*problems[:_PROBLEMS], f"{len(problems) - _PROBLEMS} more"]
        return f"{self.tool}: {'; '.join(problems)}. Arguments: {self.describe()}"

    def describe(self) -> str:
        """`item: string, count: integer (optional)`, for messages."""
        properties: Mapping[str, Any] = self.schema["properties"]
        parts = []
        for name in self.names:
            row = properties.get(name, {})
            parts.append(f"{name}: {_kind(row)}{'' if name in self.required else ' (optional)'}")
        return ", ".join(parts) or "none"


def _hints(fn: Callable[..., Any], tool: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(fn, include_extras=True)
    except Exception as e:
        raise ToolError(
            f"tool {tool!r}: a type hint cannot be read ({e}); define the type at the top of its file"
        ) from None


def _hint(hints: Mapping[str, Any], parameter: inspect.Parameter, tool: str) -> Any:
    name = parameter.name
    star = _BY_PLACE.get(parameter.kind)
    if star is not None:
        raise ToolError(f"tool {tool!r}: argument '{star}{name}' cannot be passed by name; a model names its arguments")
    if name not in hints:
        raise ToolError(f"tool {tool!r}: argument {name!r} has no type hint; write for example `{name}: str`")
    return hints[name]


def _model_and_schema(tool: str, fields: Mapping[str, Any]) -> tuple[type[BaseModel], dict[str, Any]]:
    config = ConfigDict(extra="forbid", coerce_numbers_to_str=True, arbitrary_types_allowed=True)
    try:
        model = create_model(tool, __config__=config, **fields)
        schema = model.model_json_schema(by_alias=True)
    except PydanticUserError as e:
        reason = str(e).splitlines()[0]
        raise ToolError(f"tool {tool!r}: an argument has a type that no JSON schema describes: {reason}") from None
    schema.setdefault("properties", {})
    schema.pop("additionalProperties", None)
    return model, inline(_without_titles(schema))


def _without_titles(node: Any, names: bool = False) -> Any:
    """Drop pydantic's generated titles (but no property that is called "title")."""
    if isinstance(node, list):
        return [_without_titles(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: _without_titles(value, names=key in ("properties", "$defs") and not names)
        for key, value in node.items()
        if names or key != "title"
    }


def parse_docstring(doc: str) -> tuple[str, dict[str, str]]:
    """A Google-style docstring -> (what comes before its sections, argument descriptions by name)."""
    head, *sections = re.split(r"^(Args|Arguments|Parameters|Returns|Yields|Raises|Examples?):\s*$", doc, flags=re.M)
    described: dict[str, str] = {}
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        if title not in ("Args", "Arguments", "Parameters"):
            continue
        name, indent = "", None
        for line in body.splitlines():
            stripped = line.strip()
            depth = len(line) - len(line.lstrip())
            start = re.match(r"\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)", stripped)
            indent = depth if indent is None and stripped else indent
            if start and depth == indent:
                name = start[1]
                described[name] = start[2]
            elif name and stripped:
                described[name] = f"{described[name]} {stripped}".strip()
    return " ".join(head.split()), described


def _source(hint: Any, inject: Mapping[str, type]) -> str | None:
    bare = without_none(hint)
    for name, kind in inject.items():
        protocol = getattr(kind, "_is_protocol", False)  # issubclass would ask for methods only
        if bare is kind or (isinstance(bare, type) and not protocol and issubclass(bare, kind)):
            return name
    return None


def _path(loc: tuple[int | str, ...], given: Any, whole: bool) -> str:
    """`points.0.y`: the places of `loc` that are in `given`; the others name the types of a union."""
    parts = []
    for i, part in enumerate(loc):
        in_list = isinstance(given, list) and isinstance(part, int) and part < len(given)
        if in_list or (isinstance(given, Mapping) and part in given):
            given = given[part]
        elif not (whole and i == len(loc) - 1):
            continue
        parts.append(str(part))
    return ".".join(parts)


def _kind(row: Mapping[str, Any]) -> str:
    if "enum" in row:
        return " | ".join(map(repr, row["enum"]))
    if "const" in row:
        return repr(row["const"])
    if options := row.get("anyOf", row.get("oneOf")):
        return " | ".join(_kind(option) for option in options)
    if "$ref" in row or "properties" in row:
        return "object"
    kind = str(row.get("type", "any"))
    if kind == "array" and row.get("items"):
        return f"array of {_kind(row['items'])}"
    return kind


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _short(value: Any) -> str:
    text = repr(value[:100] if isinstance(value, str | list) else value)
    return text if len(text) <= 80 else text[:77] + "..."
