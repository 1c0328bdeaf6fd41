"""Rows of one user turn: the first message with well-formed calls is matched with the answer, and ends the episode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agentgym.envs.function_calling.docs import Function, kind_of
from agentgym.envs.function_calling.matching import fits_kind, mismatch, right_calls
from agentgym.envs.script import replay, say
from agentgym.errors import ToolError
from agentgym.protocols import Policy
from agentgym.tools.episode import Episode, ToolResult
from agentgym.tools.toolset import ToolSet
from agentgym.types import Message, Task, ToolCall

ANY_CALL = "any call"
"""The answer of rows that ask only whether some function is called."""


class OneShot:
    """`Task.answer`: the expected calls as BFCL writes them, none of them where no call is right, or `ANY_CALL`."""

    def toolset(self, task: Task) -> ToolSet:
        return Sheet(task.metadata["functions"])

    def setup(self, episode: Episode) -> None:
        pass

    def reply(self, episode: Episode, message: Message) -> Message | None:
        return None

    def score(self, task: Task, answer: str, episode: Episode) -> Mapping[str, float]:
        said = next((message for message in reversed(episode.messages) if message.role == "assistant"), None)
        return {"reward": float(said is not None and self._is_right(task, said))}

    def _is_right(self, task: Task, said: Message) -> bool:
        functions: Sequence[Function] = task.metadata["functions"]
        if task.answer == ANY_CALL:
            return bool(said.tool_calls) and all(_is_valid(call, functions) for call in said.tool_calls)
        if not task.answer:
            return not said.tool_calls and bool(said.text.strip())
        return not mismatch(said.tool_calls, task.answer, functions)

    def expert(self, task: Task, seed: int, habits: Any) -> Policy:
        functions: Sequence[Function] = task.metadata["functions"]
        if task.answer == ANY_CALL:
            calls: tuple[ToolCall, ...] = (_example(functions[0]),)
        else:
            calls = right_calls(task.answer, functions)
        return replay([Message("assistant", "", tool_calls=calls) if calls else say("No function here does that.")])


class Blank:
    """A function that can be called but not run."""

    def __init__(self, function: Function):
        self.name = function.name
        self.schema = function.schema

    async def call(self, arguments: Mapping[str, Any], episode: Any = None) -> str:
        raise ToolError(f"{self.name!r} has no body: its calls are matched, not run")


class Sheet(ToolSet):
    """Functions whose calls are written down and end the episode, unless one of them is malformed."""

    def __init__(self, functions: Sequence[Function]):
        super().__init__(Blank(function) for function in functions)

    async def run(self, calls: Sequence[ToolCall], episode: Any = None) -> list[ToolResult]:
        if all(call.error is None for call in calls):
            return [ToolResult(call, "", False, True) for call in calls]
        told = "not taken: another call of this message is malformed"
        return [ToolResult(call, f"error: {call.error or told}", True) for call in calls]


def _is_valid(call: ToolCall, functions: Sequence[Function]) -> bool:
    function = next((one for one in functions if call.name in (one.name, one.own_name)), None)
    if function is None or call.error is not None or any(name not in call.arguments for name in function.required):
        return False
    known = function.parameters
    return all(name in known and fits_kind(value, kind_of(known[name])) for name, value in call.arguments.items())


def _example(function: Function) -> ToolCall:
    """A call that is valid, whatever it means."""
    plain: dict[str, Any] = {"string": "x", "integer": 1, "number": 1.0, "boolean": True, "array": [], "object": {}}
    arguments = {}
    for name in function.required:
        spec = function.parameters[name]
        arguments[name] = (spec.get("enum") or [plain.get(kind_of(spec), "x")])[0]
    return ToolCall("call_0", function.name, arguments)
