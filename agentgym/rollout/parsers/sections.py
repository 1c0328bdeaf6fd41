"""DeepSeek and Kimi: a section of calls; in each call a head, a separator, and the arguments as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentgym.rollout.parsers.base import BaseParser
from agentgym.rollout.parsers.scan import BadJson, Scan, read_arguments, read_json
from agentgym.types import ToolCall

_FENCE = "```"
_ID = re.compile(r".+:\d+")


@dataclass(frozen=True, slots=True)
class Section:
    begins: tuple[str, ...]
    ends: tuple[str, ...]
    call: str
    separator: str
    close: str
    kind: str = ""
    """What stands in the place of the name, which then follows the separator, with the JSON in a fence."""
    ids: bool = False
    """The head is the call's id, `functions.NAME:NUMBER`, which the result has to repeat."""


_DEEPSEEK = (
    ("<｜tool▁calls▁begin｜>",),
    ("<｜tool▁calls▁end｜>",),
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
)
TABLE: Mapping[str, Section] = {
    "deepseek_v3": Section(*_DEEPSEEK, kind="function"),
    "deepseek_v3.1": Section(*_DEEPSEEK),
    "kimi_k2": Section(
        ("<|tool_calls_section_begin|>", "<|tool_call_section_begin|>"),
        ("<|tool_calls_section_end|>", "<|tool_call_section_end|>"),
        "<|tool_call_begin|>",
        "<|tool_call_argument_begin|>",
        "<|tool_call_end|>",
        ids=True,
    ),
}


@dataclass(frozen=True, slots=True)
class SectionParser(BaseParser):
    section: Section = TABLE["deepseek_v3"]

    @property
    def how(self) -> str:
        return f"write {self._around(self._call('NAME', '{...}', 0))}"

    def find(self, scan: Scan, at: int) -> int:
        return scan.first((*self.section.begins, self.section.call), at)[0]

    def read(self, scan: Scan, start: int) -> int:
        section, text = self.section, scan.text
        at = _past_any(scan, section.begins, start)
        if scan.past(section.call, at) == at:
            stop, _ = scan.first((*section.begins, section.call, *section.ends), at)
            stop = len(text) if stop < 0 else stop
            if not text.startswith(section.call, stop):
                scan.fail("", f"{section.call} is missing")
                return _past_any(scan, section.ends, stop)
            at = stop
        while (inside := scan.past(section.call, at)) > at and not scan.full:
            at = self._read_call(scan, inside)
        return _past_any(scan, section.ends, at)

    def write(self, calls: Sequence[ToolCall]) -> str:
        written = []
        for i, call in enumerate(calls):
            body = json.dumps(dict(call.arguments), ensure_ascii=False)
            kept = self.section.ids and _name_of(call.id) == call.name and call.id != call.name
            written.append(self._call(call.name, body, i, call.id if kept else ""))
        return self._around(("\n" if self.section.kind else "").join(written))

    def _around(self, calls: str) -> str:
        return f"{self.section.begins[0]}{calls}{self.section.ends[0]}"

    def _call(self, name: str, body: str, index: int, call_id: str = "") -> str:
        section = self.section
        head = call_id or f"functions.{name}:{index}" if section.ids else name
        if section.kind:
            head, body = section.kind, f"{name}\n{_FENCE}json\n{body}\n{_FENCE}"
        return f"{section.call}{head}{section.separator}{body}{section.close}"

    def _read_call(self, scan: Scan, at: int) -> int:
        """Read the call whose marker ends at `at`."""
        section, text = self.section, scan.text
        stops = (section.close, section.call, *section.ends)
        stop, token = scan.first((section.separator, *stops), at)
        if token != section.separator:
            stop = len(text) if stop < 0 else stop
            head = text[at:stop].strip()
            scan.fail(_name_of(head) if _is_name(head) else "", f"{section.separator} is missing")
            return scan.past(section.close, stop)
        head = text[at:stop].strip()
        at = scan.skip(stop + len(section.separator))
        limit, _ = scan.first(stops, at)
        if not section.ids and not text.startswith("{", at):  # `function` came first: the name follows
            named, _ = scan.first(("\n", _FENCE, "{"), at)
            named = min((i for i in (named, limit) if i >= 0), default=len(text))
            head, at = text[at:named].strip(), scan.skip(named)
            if text.startswith(_FENCE, at):
                at += len(_FENCE) + (4 if text.startswith("json", at + len(_FENCE)) else 0)
        name, call_id = (_name_of(head), head) if section.ids else (head, "")
        try:
            value, end = read_json(text, scan.skip(at))
        except BadJson as e:
            cut = "" if limit >= 0 else "it was cut off: "
            scan.fail(name if _is_name(name) else "", f"{cut}arguments are invalid JSON: {e}")
            return scan.past(section.close, len(text) if limit < 0 else limit)
        arguments, wrong = read_arguments(name, value)
        after = scan.past(_FENCE, end)
        end = scan.past(section.close, after)
        if end == after and text[scan.skip(after) :][:1] and not text.startswith(stops, scan.skip(after)):
            stop, _ = scan.first(stops, after)
            end = len(text) if stop < 0 else stop
            wrong = wrong or f"text after the JSON object: {text[after:end].strip()[:40]!r}"
            end = scan.past(section.close, end)
        if not _is_name(name):
            name, wrong = "", wrong or f"{name[:40]!r} is no name"
        elif section.ids and not _ID.fullmatch(head):
            wrong = wrong or f"its id must be functions.NAME:NUMBER, not {head[:40]!r}"
        scan.add(name, arguments, call_id if not wrong and call_id != name else "", wrong=wrong)
        return end


def _past_any(scan: Scan, tokens: Sequence[str], at: int) -> int:
    for token in tokens:
        after = scan.past(token, at)
        if after > at:
            return after
    return at


def _name_of(head: str) -> str:
    """The name in `functions.NAME:NUMBER`."""
    name, colon, number = head.removeprefix("functions.").rpartition(":")
    return name if colon and number.isdecimal() else head.removeprefix("functions.")


def _is_name(name: str) -> bool:
    return 0 < len(name) <= 256 and name.isprintable() and not any(char in ' {}"<>' for char in name)
