"""The APIs of one conversation, called by the names and arguments of their docs."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentgym.envs.function_calling.apis import api_class
from agentgym.envs.function_calling.apis.base import RefusedError
from agentgym.envs.function_calling.docs import Function, kind_of
from agentgym.envs.function_calling.matching import fits_kind
from agentgym.tools.arguments import BadArguments


@dataclass(frozen=True, slots=True)
class Call:
    """A call of an answer."""

    function: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a call was answered; `error`: it was not served."""

    text: str
    error: bool = False


class World:
    """One instance of each API. Raises `ValueError` where one is not written or cannot start."""

    def __init__(self, apis: Sequence[str], config: Mapping[str, Any], functions: Mapping[str, Function]):
        self.apis = {name: api_class(name)(config.get(name) or {}) for name in apis}
        self._functions = functions

    def call(self, name: str, arguments: Mapping[str, Any]) -> Reply:
        """Serve one call; what is wrong with it is told in the reply."""
        function = self._functions[name]
        try:
            check_arguments(function, arguments)
            api = next(api for api in self.apis.values() if hasattr(api, name))
            return Reply(json.dumps(getattr(api, name)(**arguments), ensure_ascii=False))
        except BadArguments as e:
            return Reply(f"error: {e}", True)
        except (RefusedError, ArithmeticError, ValueError) as e:  # numbers may be too large to calculate or to write
            return Reply(json.dumps({"error": str(e)}, ensure_ascii=False), True)

    def difference(self, other: World) -> str:
        """The first attribute whose value differs in another world of the same APIs; empty: none."""
        for name, api in self.apis.items():
            mine, theirs = api.state(), other.apis[name].state()
            for key in mine:
                if mine[key] != theirs[key]:
                    return f"{name}.{key}"
        return ""


def check_arguments(function: Function, arguments: Mapping[str, Any]) -> None:
    """Raise `BadArguments`, written for the model, where arguments do not fit a function's doc."""
    problems = [f"argument {name!r} is missing" for name in function.required if name not in arguments]
    for name, value in arguments.items():
        if name not in function.parameters:
            problems.append(f"there is no argument {name!r}")
            continue
        spec = function.parameters[name]
        kind = kind_of(spec)
        if not (fits_kind(value, kind) or (value is None and name not in function.required)):
            problems.append(f"argument {name!r}: expected {kind}, got {value!r:.80}")
        elif kind == "array" and "items" in spec:
            inner = kind_of(spec["items"])
            if not all(fits_kind(item, inner) for item in value):
                problems.append(f"argument {name!r}: expected a list of {inner}, got {value!r:.80}")
    if problems:
        known = ", ".join(f"{name}: {kind_of(spec)}" for name, spec in function.parameters.items()) or "none"
        raise BadArguments(f"{function.name}: {'; '.join(problems)}. Arguments: {known}")


def read_call(text: Any, functions: Mapping[str, Function]) -> Call:
    """A call written as Python, `cd(folder='x')` -> `Call`; raises `ValueError`."""
    try:
        node = ast.parse(str(text).strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError):
        raise ValueError(f"{text!r} is no call") from None
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name | ast.Attribute):
        raise ValueError(f"{text!r} is no call")
    name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
    if name not in functions:
        raise ValueError(f"{text!r}: its APIs have no function {name!r}")
    names = list(functions[name].parameters)
    if len(node.args) > len(names) or any(keyword.arg is None for keyword in node.keywords):
        raise ValueError(f"{text!r}: its arguments cannot be named")
    try:
        arguments = {key: ast.literal_eval(arg) for key, arg in zip(names, node.args, strict=False)}
        arguments |= {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
    except (ValueError, TypeError):
        raise ValueError(f"{text!r}: its arguments are no literals") from None
    return Call(name, arguments)
