"""Whether calls are the right ones, by the rules that BFCL publishes for its "AST" categories.

An answer is a list of `{function: {parameter: [values that are right]}}`; "" among the values means that the parameter
may be left out. Each expected call has to be made exactly once, in any order. Types are strict, but for an int where a
float is due; texts are compared without case, spaces and the marks `,./-_*^`. Where the right value of a parameter is
of another type than its doc says (the name of a variable), that type is right instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from agentgym.envs.function_calling.docs import Function, kind_of
from agentgym.envs.function_calling.literals import read_literal
from agentgym.types import ToolCall

Answer = Sequence[Mapping[str, Mapping[str, Sequence[Any]]]]

_IGNORED = re.compile(r"[ ,./\-_*^]")
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (float, int),
    "boolean": (bool,),
    "array": (list, tuple),
    "object": (dict,),
    "any": (),
}


def mismatch(calls: Sequence[ToolCall], answer: Answer, functions: Sequence[Function]) -> str:
    """What is wrong with `calls`; empty if they are right."""
    if len(calls) != len(answer):
        return f"expected {len(answer)} calls, got {len(calls)}"
    by_name = {function.own_name: function for function in functions}
    reasons = [[_call_mismatch(call, expected, by_name) for call in calls] for expected in answer]
    if _assigned([[not reason for reason in row] for row in reasons]):
        return ""
    for row in reasons:
        if all(row):  # the first expected call that nothing fits; where one call was made, why it does not
            return row[0] if len(row) == 1 else f"no call is the expected one: {'; '.join(dict.fromkeys(row))}"
    return "two expected calls are fitted by the same call only"


def _assigned(fits: Sequence[Sequence[bool]]) -> bool:
    """Whether every row can have a column of its own (augmenting paths)."""
    owner: dict[int, int] = {}

    def place(row: int, tried: set[int]) -> bool:
        for column, fit in enumerate(fits[row]):
            if fit and column not in tried:
                tried.add(column)
                if column not in owner or place(owner[column], tried):
                    owner[column] = row
                    return True
        return False

    return all(place(row, set()) for row in range(len(fits)))


def _call_mismatch(call: ToolCall, expected: Mapping[str, Any], functions: Mapping[str, Function]) -> str:
    ((own_name, parameters),) = expected.items()
    function = functions[own_name]
    if call.error is not None:
        return f"malformed call: {call.error}"
    if call.name not in (function.name, function.own_name):
        return f"expected a call of {own_name}, got {call.name}"
    for name in function.required:
        if name not in call.arguments:
            return f"{own_name}: {name} is missing"
    for name, value in call.arguments.items():
        if name not in function.parameters or name not in parameters:
            return f"{own_name}: {name} is not expected"
        if not value_fits(value, parameters[name], function.parameters[name], function.language):
            return f"{own_name}: {name} = {value!r} is wrong"
    for name, values in parameters.items():
        if name not in call.arguments and "" not in values:
            return f"{own_name}: {name} is missing"
    return ""


def value_fits(value: Any, values: Sequence[Any], spec: Mapping[str, Any], language: str = "python") -> bool:
    """Whether an argument is one of the right `values` of the parameter that `spec` describes."""
    kind = kind_of(spec)
    if language != "python" and isinstance(value, str):
        if any(isinstance(right, str) and plain(right) == plain(value) for right in values):
            return True  # a variable or expression, or a text without its quotes
        value = read_literal(value, kind)
    if value is None:
        return None in values
    if value in ([], {}) and "" in values and _is_a(value, kind):
        return True  # nothing, said aloud
    known = next((right for right in values if right is not None and not _is_blank(right)), None)
    right_type = fits_kind(value, kind) or (known is not None and type(value) is type(known))
    return right_type and any(_fits(value, right) for right in values)


def fits_kind(value: Any, kind: str) -> bool:
    """Whether a value is of a JSON type; an int is a number, a bool is neither."""
    return kind == "any" or _is_a(value, kind)


def _is_a(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES[kind])


def _is_blank(value: Any) -> bool:
    return isinstance(value, str) and value == ""


def _fits(value: Any, right: Any) -> bool:
    """Whether a value is the right one, where dicts in `right` list the values that are right by key."""
    if isinstance(value, dict):
        return isinstance(right, Mapping) and (_dict_fits(value, right) or equal(value, right))
    if isinstance(value, list | tuple):
        if not isinstance(right, list | tuple) or len(value) != len(right):
            return False
        return all(_fits(item, other) for item, other in zip(value, right, strict=True))
    return equal(value, right)


def _dict_fits(value: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    for key, item in value.items():
        if key not in right or not any(_fits(item, option) for option in _options(right[key])):
            return False
    return all(key in value or "" in _options(options) for key, options in right.items())


def _options(given: Any) -> Sequence[Any]:
    return given if isinstance(given, list) else [given]  # a few rows give the one right value itself


def equal(one: Any, other: Any) -> bool:
    """Equality of JSON values, texts compared as `plain` has them; true and 1 differ, 1 and 1.0 do not."""
    if isinstance(one, str) and isinstance(other, str):
        return plain(one) == plain(other)
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(equal(item, other[key]) for key, item in one.items())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(equal(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def plain(text: str) -> str:
    """A text as it is compared: in lower case, without spaces and the marks `,./-_*^`, all quotes double."""
    return _IGNORED.sub("", text).lower().replace("'", '"')


def right_calls(answer: Answer, functions: Sequence[Function]) -> tuple[ToolCall, ...]:
    """Calls that are right: of each parameter its first value, those that may be left out left out."""
    by_name = {function.own_name: function for function in functions}
    calls = []
    for i, expected in enumerate(answer):
        ((own_name, parameters),) = expected.items()
        function = by_name[own_name]
        arguments = {
            name: _right_value(values, kind_of(function.parameters[name]))
            for name, values in parameters.items()
            if name in function.required or "" not in values
        }
        calls.append(ToolCall(f"call_{i}", function.name, arguments))
    return tuple(calls)


def _right_value(values: Sequence[Any], kind: str = "any") -> Any:
    nothing: Any = {"array": [], "object": {}}.get(kind, "")
    return _plain_value(next((value for value in values if not _is_blank(value)), nothing))


def _plain_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _right_value(_options(options)) for key, options in value.items() if "" not in _options(options)}
    if isinstance(value, list | tuple):
        return [_plain_value(item) for item in value]
    return value


def check_answer(answer: Any, functions: Sequence[Function]) -> Answer:
    """The answer of a row if it has the form of one and names functions of its own; raises `ValueError`."""
    if not isinstance(answer, list):
        raise ValueError(f"answer: expected a list of calls, got {type(answer).__name__}")
    by_name = {function.own_name: function for function in functions}
    for i, expected in enumerate(answer):
        where = f"answer[{i}]"
        if not isinstance(expected, Mapping) or len(expected) != 1:
            raise ValueError(f"{where}: expected an object of one function, got {expected!r}")
        ((own_name, parameters),) = expected.items()
        if own_name not in by_name:
            raise ValueError(f"{where}: there is no function {own_name!r} (there are: {', '.join(by_name)})")
        if not isinstance(parameters, Mapping):
            raise ValueError(f"{where}: expected the parameters of {own_name} by name, got {parameters!r}")
        for name, values in parameters.items():
            if not isinstance(values, list):
                raise ValueError(f"{where}: {own_name}.{name}: expected a list of right values, got {values!r}")
            if name not in by_name[own_name].parameters and "" not in values:
                raise ValueError(f"{where}: {own_name} has no parameter {name!r}")
    # a parameter for which no right value is given can only be left out
    return [{own: {name: v or [""] for name, v in given.items()} for own, given in one.items()} for one in answer]
