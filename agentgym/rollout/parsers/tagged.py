"""Formats that differ only in the markers around JSON calls, as one table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentgym.rollout.parsers.base import BaseParser
from agentgym.rollout.parsers.hermes import call_json
from agentgym.rollout.parsers.scan import BadJson, Scan, guess_name
from agentgym.rollout.parsers.values import read_bare_values, read_values
from agentgym.types import ToolCall

# an object whose first key is one that calls have, perhaps in an array
_BARE = re.compile(r'(?:\[\s{0,64})?\{\s{0,64}"(?:name|type|function|parameters|arguments)"')


@dataclass(frozen=True, slots=True)
class Tags:
    """`opens`: the markers, the one that is written first; `separator`: what is written between calls."""

    opens: tuple[str, ...]
    close: str = ""
    array: bool = True
    """All calls are written as one array."""
    key: str = "arguments"
    separator: str = "\n"
    bare: bool = False
    """Calls without a marker count, and are so written."""


TABLE: Mapping[str, Tags] = {
    "llama3_json": Tags(("<|python_tag|>",), array=False, key="parameters", separator="; ", bare=True),
    "granite": Tags(("<|tool_call|>", "<tool_call>")),
    "granite_20b_fc": Tags(("<function_call>",), array=False, separator="\n<function_call>"),
    "internlm2": Tags(("<|action_start|><|plugin|>", "<|action_start|>"), "<|action_end|>", False, "parameters"),
    "jamba": Tags(("<tool_calls>",), "</tool_calls>"),
    "hunyuan_a13b": Tags(("<tool_calls>",), "</tool_calls>"),
    "minimax_m1": Tags(("<tool_calls>",), "</tool_calls>", array=False),
    "longcat": Tags(("<longcat_tool_call>",), "</longcat_tool_call>", array=False),
    "phi4_mini": Tags(("functools",)),
    "xlam": Tags(("<tool_call>", "[TOOL_CALLS]", "```json"), bare=True),
    "gigachat3": Tags(("<|function_call|>", "<|message_sep|>\n\nfunction call<|role_sep|>"), array=False),
}
_ENDS = {"<tool_call>": "</tool_call>", "```json": "```"}


@dataclass(frozen=True, slots=True)
class TaggedParser(BaseParser):
    """JSON calls behind a marker, before another where the format has one."""

    tags: Tags = TABLE["granite"]

    @property
    def how(self) -> str:
        call = f'{{"name": "...", "{self.tags.key}": {{...}}}}'
        return f"write {self._around(f'[{call}]' if self.tags.array else call)}"

    def find(self, scan: Scan, at: int) -> int:
        start, _ = scan.first(self.tags.opens, at)
        bare = scan.search(_BARE, at) if self.tags.bare else -1
        return bare if start < 0 or 0 <= bare < start else start

    def read(self, scan: Scan, start: int) -> int:
        _, opening = scan.first(self.tags.opens, start)
        if not opening or not scan.text.startswith(opening, start):
            return read_bare_values(scan, start)
        at = scan.skip(start + len(opening))
        if opening[0].isalpha() and not scan.text.startswith(("[", "{"), at):
            return at  # a word in a sentence
        closing = self.tags.close or _ENDS.get(opening, "")
        made = len(scan.calls)
        try:
            end = read_values(scan, at)
        except BadJson as e:
            if self.tags.bare and not closing:  # whole calls may follow the broken one
                stop, token = self.find(scan, max(at, e.at)), ""
            else:
                stop, token = scan.first((closing, *self.tags.opens) if closing else self.tags.opens, at)
            end = len(scan.text) if stop < 0 else stop
            cut = "it was cut off: " if e.at >= len(scan.text) or str(e).startswith("Unterminated") else ""
            scan.fail(guess_name(scan.text[at:end]), f"{cut}invalid JSON: {e}")
            return end + len(token) if token == closing else end
        after = scan.past(closing, end)
        if closing and after == end and len(scan.calls) > made:
            stop, token = scan.first((closing, *self.tags.opens), end)
            if token == closing:
                scan.fail("", f"text after the JSON: {scan.text[end:stop].strip()[:40]!r}")
                return stop + len(closing)
        return after

    def write(self, calls: Sequence[ToolCall]) -> str:
        if self.tags.array:
            return self._around(f"[{', '.join(call_json(call, self.tags.key) for call in calls)}]")
        if self.tags.bare or not self.tags.close:
            return self._around(self.tags.separator.join(call_json(call, self.tags.key) for call in calls))
        return "\n".join(self._around(call_json(call, self.tags.key)) for call in calls)

    def _around(self, body: str) -> str:
        return body if self.tags.bare else f"{self.tags.opens[0]}{body}{self.tags.close}"
