"""OpenAI's own form: the text is an assistant message, its list of tool calls, or one of them, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentgym.protocols import ParsedCalls
from agentgym.rollout.parsers.base import BaseParser
from agentgym.rollout.parsers.hermes import add_call
from agentgym.rollout.parsers.scan import BadJson, Scan, load_json, read_json
from agentgym.rollout.parsers.values import is_call, read_bare_values, unwrap
from agentgym.types import Message, ToolCall

_FIELDS = ("tool_calls", "function_call", "content", "reasoning_content", "reasoning")


@dataclass(frozen=True, slots=True)
class NativeParser(BaseParser):
    """Ids are kept as they were given. Text that does not begin with JSON is content."""

    @property
    def how(self) -> str:
        return 'write {"role": "assistant", "tool_calls": [{"function": {"name": "...", "arguments": "{...}"}}]}'

    def parse(self, text: str, tools: Sequence[Mapping[str, Any]] = (), *, id_prefix: str = "call_") -> ParsedCalls:
        """Take the message apart; calls without an id get `id_prefix` + 0, 1, ... Raises on no text whatever."""
        try:
            row = load_json(text) if text.lstrip().startswith("{") else None
        except BadJson:
            row = None
        if not isinstance(row, dict) or not any(key in row for key in _FIELDS):
            return BaseParser.parse(self, text, tools, id_prefix=id_prefix)
        scan = Scan(text, self.how, tools, id_prefix)
        made = row.get("tool_calls") or []
        if not isinstance(made, list):
            scan.fail("", f"tool_calls must be a list, got {type(made).__name__}")
            made = []
        for call in [*made, *([row["function_call"]] if row.get("function_call") else [])]:
            _add(scan, call)
        errors = tuple([call.error for call in scan.calls if call.error is not None])
        reasoning = _text(row.get("reasoning_content", row.get("reasoning")))
        return ParsedCalls(tuple(scan.calls), errors, _text(row.get("content")) or "", reasoning)

    def find(self, scan: Scan, at: int) -> int:
        at = scan.skip(at)
        return at if scan.text.startswith(("{", "["), at) else -1

    def read(self, scan: Scan, start: int) -> int:
        try:
            value, end = read_json(scan.text, start)
        except BadJson:
            made = len(scan.calls)
            read_bare_values(scan, start)
            opening = scan.text[start : start + 64]
            if len(scan.calls) == made and ('"tool_calls"' in opening or '"role"' in opening):
                scan.fail("", "the message is not valid JSON")
            return len(scan.text)
        rows = value if isinstance(value, list) else [value]
        if rows and all(is_call(row) for row in rows):
            for row in rows:
                _add(scan, row)
        return end

    def write(self, calls: Sequence[ToolCall]) -> str:
        return json.dumps(Message("assistant", tool_calls=tuple(calls)).to_openai()["tool_calls"], ensure_ascii=False)

    def format(self, message: Message) -> str:
        """The message as JSON."""
        return json.dumps(message.to_openai(), ensure_ascii=False)


def _add(scan: Scan, row: Any) -> None:
    kept = row.get("id") if isinstance(row, dict) else None
    usable = isinstance(kept, str) and 0 < len(kept) <= 256 and kept.isprintable()
    add_call(scan, unwrap(row), kept_id=kept if usable and isinstance(kept, str) else "")


def _text(value: Any) -> str | None:
    """Text, or the text in a list of parts; None where there is none. Half surrogates become question marks."""
    if isinstance(value, list):
        parts = [part.get("text") for part in value if isinstance(part, dict)]
        value = "".join(part for part in parts if isinstance(part, str))
    return value.encode(errors="replace").decode() if isinstance(value, str) else None
