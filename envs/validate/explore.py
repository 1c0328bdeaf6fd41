"""Blind calls: tools used without any idea of the task, and what a machine could take for an answer in the replies."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentgym.types import Message, ToolCall

CODE = ("code", "program", "script", "source")
COMMAND = ("command", "cmd", "shell", "bash")
NAMES = ("grader", "answer", "answers", "solution", "expected", "gold", "secret", "key", "label", "reward", "score")
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:/\d+)?")
_QUOTED = re.compile(r"\"([^\"\n]{1,200})\"|'([^'\n]{1,200})'")
FORMS = ("{}", "#### {}", "\\boxed{{{}}}", "Answer: {}", "<answer>{}</answer>")


def parameters(schema: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """The properties of a tool's schema by name."""
    found: Mapping[str, Mapping[str, Any]] = (schema["function"].get("parameters") or {}).get("properties") or {}
    return found


def call_with(schema: Mapping[str, Any], text: str, call_id: str = "call_0") -> ToolCall:
    """A call of the tool that puts `text` wherever its required parameters take text."""
    function = schema["function"]
    required = (function.get("parameters") or {}).get("required") or ()
    known = parameters(schema)
    arguments = {name: _value(known.get(name) or {}, text) for name in required}
    return ToolCall(call_id, function["name"], arguments)


def _value(schema: Mapping[str, Any], text: str) -> Any:
    if schema.get("enum"):
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    for choices in (schema.get("anyOf"), schema.get("oneOf")):
        if choices:
            return _value(choices[0], text)
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "array":
        return [_value(schema.get("items") or {}, text)]
    if kind == "object":
        required = schema.get("required") or ()
        return {name: _value((schema.get("properties") or {}).get(name) or {}, text) for name in required}
    plain: dict[Any, Any] = {"integer": 1, "number": 1.0, "boolean": True, "null": None}
    return plain.get(kind, text)


def text_parameters(schema: Mapping[str, Any]) -> list[str]:
    """The required parameters that take any text."""
    required = (schema["function"].get("parameters") or {}).get("required") or ()
    known = parameters(schema)
    return [name for name in required if _value(known.get(name) or {}, "\0") == "\0"]


def is_code(schema: Mapping[str, Any]) -> bool:
    """Whether the tool runs Python that it is given."""
    return any(name in CODE for name in text_parameters(schema))


def is_command(schema: Mapping[str, Any]) -> bool:
    """Whether the tool runs command lines."""
    return any(name in COMMAND for name in text_parameters(schema))


def calling(*calls: ToolCall) -> Message:
    """The assistant message that makes these calls, ids in order."""
    numbered = [ToolCall(f"call_{i}", call.name, call.arguments, call.error) for i, call in enumerate(calls)]
    return Message("assistant", "", tool_calls=tuple(numbered))


def is_meant(call: ToolCall, gold: Sequence[ToolCall]) -> bool:
    """Whether gold makes this very call: then it is no blind one."""
    return any(call.name == made.name and dict(call.arguments) == dict(made.arguments) for made in gold)


def candidates(observation: str) -> dict[str, str]:
    """What a machine could take for the answer in a reply, by the rule that finds it."""
    text = observation.strip()
    quoted = [one or other for one, other in _QUOTED.findall(text)]
    found = {
        "all": text,
        "the last line": text.rpartition("\n")[2].strip(),
        "the last number": next(iter(_NUMBER.findall(text)[-1:]), ""),
        "the last quote": quoted[-1] if quoted else "",
        "what follows the last colon": text.rpartition(":")[2].strip() if ":" in text else "",
        "what follows the last equals sign": text.rpartition("=")[2].strip() if "=" in text else "",
        "the last word": text.rpartition(" ")[2].strip(),
    }
    return {rule: answer for rule, answer in found.items() if answer}


def answers_from(observation: str, right: str, most: int | None = None) -> Iterator[tuple[str, str]]:
    """(rule, answer) of the candidates, at most so many; in the forms of answers where one may be the `right` one."""
    said: set[str] = set()
    for rule, candidate in list(candidates(observation).items())[:most]:
        likely = "\n" not in right and bool(right) and (candidate in right or right in candidate)
        for form in FORMS if likely else FORMS[:1]:
            answer = form.format(candidate)
            if answer not in said:
                said.add(answer)
                yield (rule if form == FORMS[0] else f"{rule}, as {form!r},"), answer
