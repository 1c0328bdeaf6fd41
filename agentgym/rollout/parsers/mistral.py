"""Mistral: `[TOOL_CALLS]` and an array of calls; from tokenizer version 11 on, `[TOOL_CALLS]NAME[ARGS]{...}` a call."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from agentgym.rollout.parsers.base import END_THINK, THINK, BaseParser
from agentgym.rollout.parsers.hermes import call_json
from agentgym.rollout.parsers.scan import BadJson, Scan, guess_name, read_arguments, read_json
from agentgym.rollout.parsers.values import read_values
from agentgym.types import ToolCall

OPEN, CALL_ID, ARGS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"
_NAMED = re.compile(r"(?<![\w.:/-])[\w.:/-]{1,256}(?:\[CALL_ID\]\w{1,64})?\[ARGS\]")


@dataclass(frozen=True, slots=True)
class MistralParser(BaseParser):
    """Reads all of them. `named`: write the later form."""

    named: bool = False

    thoughts: ClassVar[tuple[tuple[str, str], ...]] = ((THINK, END_THINK), ("[THINK]", "[/THINK]"))

    @property
    def how(self) -> str:
        return f"write {OPEN}" + ("NAME[ARGS]{...}" if self.named else '[{"name": "...", "arguments": {...}}]')

    def find(self, scan: Scan, at: int) -> int:
        start = scan.find(OPEN, at)
        named = scan.search(_NAMED, at) if scan.find(ARGS, at) >= 0 else -1
        return named if start < 0 or 0 <= named < start else start

    def read(self, scan: Scan, start: int) -> int:
        text = scan.text
        at = scan.skip(start + len(OPEN)) if text.startswith(OPEN, start) else start
        if not text.startswith(("[", "{"), at) or text.startswith((CALL_ID, ARGS, OPEN), at):
            return self._read_named(scan, at)
        try:
            return read_values(scan, at)
        except BadJson as e:
            end = _next(scan, at)
            scan.fail(guess_name(text[at:end]), f"{_cut(scan, e)}invalid JSON: {e}")
            return end

    def write(self, calls: Sequence[ToolCall]) -> str:
        if self.named:
            bodies = [(call.name, json.dumps(dict(call.arguments), ensure_ascii=False)) for call in calls]
            return "".join(f"{OPEN}{name}{ARGS}{body}" for name, body in bodies)
        return f"{OPEN}[{', '.join(call_json(call) for call in calls)}]"

    def _read_named(self, scan: Scan, at: int) -> int:
        """A call that begins with its name, at `at`."""
        text = scan.text
        stop, token = scan.first((CALL_ID, ARGS, "{", OPEN), at)
        name = text[at:stop].strip() if stop >= 0 else text[at:].strip()
        if not name or len(name) > 256 or not name.isprintable() or " " in name:
            scan.fail("", f"the name of the tool must follow {OPEN}")
            return _next(scan, at)
        body = stop
        if token == CALL_ID:
            body, token = scan.first((ARGS, "{", OPEN), stop)
        if token in ("", OPEN):
            scan.fail(name, "its arguments are missing")
            return _next(scan, at)
        body = scan.skip(body + len(ARGS)) if token == ARGS else body
        try:
            value, end = read_json(text, body)
        except BadJson as e:
            scan.fail(name, f"{_cut(scan, e)}arguments are invalid JSON: {e}")
            return _next(scan, body)
        arguments, wrong = read_arguments(name, value)
        scan.add(name, arguments, wrong=wrong)
        return end


def _next(scan: Scan, at: int) -> int:
    """Where a malformed call is over: at the next one, or with the text."""
    stop = scan.find(OPEN, at)
    return len(scan.text) if stop < 0 else stop


def _cut(scan: Scan, error: BadJson) -> str:
    ended = error.at >= len(scan.text) or str(error).startswith("Unterminated")
    return "it was cut off: " if ended else ""
