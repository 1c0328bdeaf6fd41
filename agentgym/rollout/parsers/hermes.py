"""Hermes/Qwen tool calls: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, reasoning in `<think>` tags."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentgym.protocols import ParsedCalls
from agentgym.rollout.parsers.base import BaseParser
from agentgym.rollout.parsers.scan import BLANK, BadJson, Scan, guess_name, read_arguments, read_json, read_plain
from agentgym.types import ToolCall

OPEN, CLOSE = "<tool_call>", "</tool_call>"
MOST_PLAIN = 1 << 14
"""Characters of a text that is short enough to be read twice."""


@dataclass(frozen=True, slots=True)
class HermesParser(BaseParser):
    """One object between two tags. Closing tags inside JSON strings do no harm."""

    @property
    def how(self) -> str:
        return f'write {OPEN}{{"name": "...", "arguments": {{...}}}}{CLOSE}'

    def parse(self, text: str, tools: Sequence[Mapping[str, Any]] = (), *, id_prefix: str = "call_") -> ParsedCalls:
        plain = self._parse_plain(text, id_prefix)
        return BaseParser.parse(self, text, tools, id_prefix=id_prefix) if plain is None else plain

    def _parse_plain(self, text: str, id_prefix: str) -> ParsedCalls | None:
        """What models write most, a text without tags or one whole call, read at a fifth of the cost; else None."""
        if self.thinking_open or "think>" in text:
            return None
        if "<" not in text:
            return ParsedCalls((), (), text.strip(), None)
        if not text.startswith(OPEN) or "\\" in text or len(text) > MOST_PLAIN:
            return None
        body, end = read_plain(text, len(OPEN) + text.startswith("\n", len(OPEN)))
        if type(body) is not dict or text[end:].lstrip(BLANK) != CLOSE:
            return None
        name, arguments = body.get("name"), body.get("arguments")
        if type(name) is not str or not name or type(arguments) is not dict:
            return None
        return ParsedCalls((ToolCall(f"{id_prefix}0", name, arguments, None),), (), "", None)

    def find(self, scan: Scan, at: int) -> int:
        return scan.find(OPEN, at)

    def read(self, scan: Scan, start: int) -> int:
        start += len(OPEN)
        try:
            body, end = read_json(scan.text, scan.skip(start))
        except BadJson as e:
            end = _end_of_malformed(scan, start)
            cut = "" if scan.text.startswith(CLOSE, end) else "it was cut off: "
            scan.fail(guess_name(scan.text[start:end]), f"{cut}invalid JSON: {e}")
            return scan.past(CLOSE, end)
        after = scan.past(CLOSE, end)
        wrong = None
        if after == end:
            after = _end_of_malformed(scan, end)
            closed = scan.text.startswith(CLOSE, after)
            rest = scan.text[end:after].strip()[:40]
            wrong = f"text after the JSON object: {rest!r}" if closed else f"{CLOSE} is missing"
            after = scan.past(CLOSE, after)
        add_call(scan, body, wrong)
        return after

    def write(self, calls: Sequence[ToolCall]) -> str:
        return "\n".join(f"{OPEN}\n{call_json(call)}\n{CLOSE}" for call in calls)


def add_call(scan: Scan, body: Any, wrong: str | None = None, kept_id: str = "") -> None:
    """A call out of the object `{"name": ..., "arguments": {...}}` (or `parameters`); `wrong`: what else is."""
    if not isinstance(body, dict):
        scan.fail("", f"expected a JSON object, got {type(body).__name__}")
        return
    name = body.get("name")
    if not isinstance(name, str) or not name:
        scan.fail("", '"name" must be a non-empty string')
        return
    arguments, bad = read_arguments(name, body["arguments"] if "arguments" in body else body.get("parameters"))
    scan.add(name, arguments, kept_id, wrong=bad or wrong)


def call_json(call: ToolCall, key: str = "arguments") -> str:
    return json.dumps({"name": call.name, key: dict(call.arguments)}, ensure_ascii=False)


def _end_of_malformed(scan: Scan, at: int) -> int:
    """A malformed body ends at its closing tag, else where the next call opens, else with the text."""
    end, _ = scan.first((CLOSE, OPEN), at)
    return len(scan.text) if end < 0 else end
