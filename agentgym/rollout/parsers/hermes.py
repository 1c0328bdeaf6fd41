"""Hermes/Qwen tool calls: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, reasoning in `<think>` tags.

Scanning is `str.find` plus the C scanner of `json`: nothing backtracks, and closing tags inside JSON strings do no
harm. What is malformed becomes a call with `error` set: the env answers it and the model may try again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from agentgym.protocols import ParsedCalls
from agentgym.types import Message, ToolCall

OPEN, CLOSE = "<tool_call>", "</tool_call>"
THINK, END_THINK = "<think>", "</think>"
_HOW = f'write {OPEN}{{"name": "...", "arguments": {{...}}}}{CLOSE}'
_BLANK = " \t\r\n"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


# strict=False: models write raw newlines inside strings; NaN would make stored trajectories invalid JSON
_decode = json.JSONDecoder(strict=False, parse_constant=_refuse_constant).raw_decode


@dataclass(frozen=True, slots=True)
class HermesParser:
    """`thinking_open`: the generation prompt already wrote `<think>`, so text begins inside the reasoning."""

    thinking_open: bool = False

    def parse(self, text: str, tools: Sequence[Mapping[str, Any]] = (), *, id_prefix: str = "call_") -> ParsedCalls:
        """Take a model's text apart; ids are `id_prefix` + 0, 1, ... Raises on no text whatever."""
        reasoning, at = self._reasoning(text)
        if at < 0:  # thinking that never ended: nothing was said yet
            return ParsedCalls((), (), "", reasoning)
        start = text.find(OPEN, at)
        if start < 0:
            return ParsedCalls((), (), text[at:].strip(), reasoning)
        calls: list[ToolCall] = []
        said: list[str] = []
        while start >= 0:
            said.append(text[at:start].strip())
            call, at = _call(text, start + len(OPEN), f"{id_prefix}{len(calls)}")
            calls.append(call)
            start = text.find(OPEN, at)
        said.append(text[at:].strip())
        errors = tuple(call.error for call in calls if call.error is not None)
        return ParsedCalls(tuple(calls), errors, "\n".join(filter(None, said)), reasoning)

    def format(self, message: Message) -> str:
        """The text a model would write: the inverse of `parse` for stripped text that holds none of the tags."""
        said = [message.text] if message.text else []
        for call in message.tool_calls:
            body = json.dumps({"name": call.name, "arguments": dict(call.arguments)}, ensure_ascii=False)
            said.append(f"{OPEN}\n{body}\n{CLOSE}")
        text = "\n".join(said)
        if message.reasoning is None:
            return f"{END_THINK}\n\n{text}" if self.thinking_open else text
        opening = "" if self.thinking_open else f"{THINK}\n"
        return f"{opening}{message.reasoning}\n{END_THINK}\n\n{text}"

    def _reasoning(self, text: str) -> tuple[str | None, int]:
        """The reasoning (None where there is none) and where the rest begins (-1: it never ended)."""
        end = text.find(END_THINK)
        opened = self.thinking_open
        begin = 0
        if end < 0 and not opened and THINK not in text:
            return None, 0
        lead = len(text) - len(text.lstrip())
        if text.startswith(THINK, lead):
            opened, begin = True, lead + len(THINK)
        elif not opened:
            end = _outside_calls(text, end)
        if end >= 0:
            inner = text[begin:end].strip()
            # a prompt that opened the thinking, and a model that closed it at once
            return (inner if inner or begin or not opened else None), end + len(END_THINK)
        return (text[begin:].strip(), -1) if opened else (None, 0)


def _outside_calls(text: str, end: int) -> int:
    """The first `</think>` at or after `end` that is not inside the JSON of a call, or -1."""
    start = text.find(OPEN)
    while 0 <= start < end:
        _, after = _call(text, start + len(OPEN), "")
        if end < after:
            end = text.find(END_THINK, after)
        start = text.find(OPEN, after)
    return end


def _call(text: str, start: int, call_id: str) -> tuple[ToolCall, int]:
    """Read the call whose body begins at `start`; also returns where the text goes on."""
    at = _skip_blank(text, start)
    try:
        body, end = _decode(text, at)
    except (ValueError, RecursionError) as e:
        end = _end_of_malformed(text, start)
        what = f"{e.msg} at character {e.pos - at}" if isinstance(e, json.JSONDecodeError) else str(e)
        cut = not text.startswith(CLOSE, end)
        error = f"malformed tool call: {'it was cut off: ' if cut else ''}invalid JSON: {what}; {_HOW}"
        return ToolCall(call_id, _guess_name(text[start:end]), {}, error), _past_close(text, end)
    name, arguments, wrong = _read(body, text, at, end)
    after = _skip_blank(text, end)
    if text.startswith(CLOSE, after):
        return ToolCall(call_id, name, arguments, wrong), after + len(CLOSE)
    end = _end_of_malformed(text, end)
    if wrong is None:
        closed = text.startswith(CLOSE, end)
        what = f"text after the JSON object: {text[after:end].strip()[:40]!r}" if closed else f"{CLOSE} is missing"
        wrong = f"malformed tool call: {what}; {_HOW}"
    return ToolCall(call_id, name, arguments, wrong), _past_close(text, end)


def _read(body: Any, text: str, at: int, end: int) -> tuple[str, dict[str, Any], str | None]:
    """Name, arguments and error of a decoded call."""
    if not isinstance(body, dict):
        return "", {}, f"malformed tool call: expected a JSON object, got {type(body).__name__}; {_HOW}"
    name = body.get("name")
    if not isinstance(name, str) or not name:
        return "", {}, f'malformed tool call: "name" must be a non-empty string; {_HOW}'
    arguments = body["arguments"] if "arguments" in body else body.get("parameters")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments, strict=False, parse_constant=_refuse_constant) if arguments else {}
        except (ValueError, RecursionError) as e:
            return name, {}, f"malformed tool call: arguments of {name!r} are not valid JSON: {e}; {_HOW}"
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        got = type(arguments).__name__
        return name, {}, f"malformed tool call: arguments of {name!r} must be a JSON object, got {got}; {_HOW}"
    if text.find("\\u", at, end) >= 0 and not _encodable(name, arguments):
        # half of a surrogate pair is no text: it could be neither stored nor tokenised
        shown = name.encode(errors="replace").decode()
        return shown, {}, f"malformed tool call: invalid \\u escape (half of a surrogate pair); {_HOW}"
    return name, arguments, None


def _encodable(name: str, arguments: dict[str, Any]) -> bool:
    try:
        (name + json.dumps(arguments, ensure_ascii=False)).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


def _skip_blank(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANK:
        at += 1
    return at


def _end_of_malformed(text: str, at: int) -> int:
    """A malformed body ends at its closing tag, else where the next call opens, else with the text."""
    opens = text.find(OPEN, at)
    limit = len(text) if opens < 0 else opens
    close = text.find(CLOSE, at, limit)  # not beyond: many unclosed calls would each search the whole text
    return limit if close < 0 else close


def _past_close(text: str, at: int) -> int:
    return at + len(CLOSE) if text.startswith(CLOSE, at) else at


def _guess_name(body: str) -> str:
    """The tool's name in a body that is not JSON, or "": the env's answer can then name it."""
    _, key, rest = body.partition('"name"')
    _, colon, rest = rest.partition(":")
    _, quote, rest = rest.partition('"')
    name, closing, _ = rest.partition('"')
    return name if key and colon and quote and closing and len(name) <= 64 and name.isprintable() else ""
