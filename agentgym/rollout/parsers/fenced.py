"""Calls in fenced code, as models write them that were shown no format: JSON behind ```` ```tool_call ````."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentgym.rollout.parsers.base import BaseParser
from agentgym.rollout.parsers.hermes import call_json
from agentgym.rollout.parsers.scan import BadJson, Scan, guess_name
from agentgym.rollout.parsers.values import read_bare_values, read_values
from agentgym.types import ToolCall

FENCE = "```"
_LABELS = ("tool_call", "tool_calls", "function_call", "tool")


@dataclass(frozen=True, slots=True)
class FencedParser(BaseParser):
    """A block labelled `json`, or not at all, is a call if its JSON says so; other blocks are content."""

    @property
    def how(self) -> str:
        return f'write {FENCE}tool_call, a line with {{"name": "...", "arguments": {{...}}}}, and {FENCE}'

    def find(self, scan: Scan, at: int) -> int:
        return scan.find(FENCE, at)

    def read(self, scan: Scan, start: int) -> int:
        text = scan.text
        at = start + len(FENCE)
        label_end = at
        while label_end < min(len(text), at + 32) and (text[label_end].isalnum() or text[label_end] == "_"):
            label_end += 1
        label = text[at:label_end].lower()
        body = scan.skip(label_end)
        made = len(scan.calls)
        if label in _LABELS:
            try:
                end = read_values(scan, body)
            except BadJson as e:
                end = self._block_end(scan, label_end)
                cut = "" if text.startswith(FENCE, end) else "it was cut off: "
                scan.fail(guess_name(text[body:end]), f"{cut}invalid JSON: {e}")
                return scan.past(FENCE, end)
            if len(scan.calls) > made and scan.past(FENCE, end) == end and text[end:].strip():
                end = self._block_end(scan, end)
                scan.fail("", f"text after the JSON, or {FENCE} is missing")
            return scan.past(FENCE, end)
        if label in ("json", "") and text.startswith(("{", "["), body):
            end = read_bare_values(scan, body)
            if len(scan.calls) > made:
                return scan.past(FENCE, self._block_end(scan, end))
        return scan.past(FENCE, self._block_end(scan, label_end))

    def write(self, calls: Sequence[ToolCall]) -> str:
        return "\n".join(f"{FENCE}tool_call\n{call_json(call)}\n{FENCE}" for call in calls)

    def _block_end(self, scan: Scan, at: int) -> int:
        end = scan.find(FENCE, at)
        return len(scan.text) if end < 0 else end
