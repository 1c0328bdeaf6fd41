"""XML-like calls whose values are bare text: `<function=NAME><parameter=KEY>VALUE</parameter></function>` and alike."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from agentgym.rollout.parsers.base import END_THINK, THINK, BaseParser
from agentgym.rollout.parsers.scan import Scan
from agentgym.rollout.parsers.schema import kinds_of, typed
from agentgym.types import ToolCall


@dataclass(frozen=True, slots=True)
class Elements:
    """`call` and `parameter` are what stands before a name; what stands after it is `"` and attributes, then `>`."""

    wrapper: tuple[str, str]
    call: str = "<function="
    call_close: str = "</function>"
    parameter: str = "<parameter="
    parameter_close: str = "</parameter>"
    pad: str = "\n"
    """What is written around a value; a line break there is none of the value's."""
    quoted: bool = False
    marks_text: bool = False
    """A parameter says itself whether it is text, as `string="true"`, or JSON."""


_TOOL_CALL = ("<tool_call>", "</tool_call>")
TABLE: Mapping[str, Elements] = {
    "qwen3_coder_xml": Elements(_TOOL_CALL),
    "qwen3_xml": Elements(_TOOL_CALL),
    "step3p5": Elements(_TOOL_CALL),
    "seed_oss": Elements(("<seed:tool_call>", "</seed:tool_call>"), pad=""),
    "minimax_m2": Elements(
        ("<minimax:tool_call>", "</minimax:tool_call>"),
        '<invoke name="',
        "</invoke>",
        '<parameter name="',
        pad="",
        quoted=True,
    ),
    "deepseek_v3.2_dsml": Elements(
        ("<｜DSML｜function_calls>", "</｜DSML｜function_calls>"),
        '<｜DSML｜invoke name="',
        "</｜DSML｜invoke>",
        '<｜DSML｜parameter name="',
        "</｜DSML｜parameter>",
        pad="",
        quoted=True,
        marks_text=True,
    ),
}


@dataclass(frozen=True, slots=True)
class ElementsParser(BaseParser):
    """The wrapper may be missing; so may a closing tag, where what follows shows that the element is over."""

    row: Elements = TABLE["qwen3_coder_xml"]

    thoughts: ClassVar[tuple[tuple[str, str], ...]] = ((THINK, END_THINK), ("<seed:think>", "</seed:think>"))

    @property
    def how(self) -> str:
        row, end = self.row, '">' if self.row.quoted else ">"
        mark = '" string="true">' if row.marks_text else end
        body = f"{row.parameter}KEY{mark}VALUE{row.parameter_close}"
        return f"write {row.wrapper[0]}{row.call}NAME{end}{body}{row.call_close}{row.wrapper[1]}"

    def find(self, scan: Scan, at: int) -> int:
        return scan.first((self.row.wrapper[0], self.row.call), at)[0]

    def read(self, scan: Scan, start: int) -> int:
        row, text = self.row, scan.text
        at = scan.past(row.wrapper[0], start)
        if not text.startswith(row.call, scan.skip(at)):
            stop, token = scan.first((row.call, *row.wrapper), at)
            if token != row.call:
                scan.fail("", f"{row.call}NAME is missing")
                return scan.past(row.wrapper[1], len(text) if stop < 0 else stop)
            at = stop
        while text.startswith(row.call, scan.skip(at)) and not scan.full:
            at = self._read_call(scan, scan.skip(at) + len(row.call))
        return scan.past(row.wrapper[1], at)

    def write(self, calls: Sequence[ToolCall]) -> str:
        row = self.row
        bodies = [f"{row.call}{call.name}{self._head_end()}\n{self._body(call)}{row.call_close}" for call in calls]
        if row.quoted:
            return f"{row.wrapper[0]}\n" + "\n".join(bodies) + f"\n{row.wrapper[1]}"
        return "\n".join(f"{row.wrapper[0]}\n{body}\n{row.wrapper[1]}" for body in bodies)

    def _head_end(self) -> str:
        return '">' if self.row.quoted else ">"

    def _body(self, call: ToolCall) -> str:
        row, lines = self.row, []
        for key, value in call.arguments.items():
            written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            check_carried(call.name, key, written, self._stops())
            check_carried(call.name, key, key, (">", '"', "\n"))
            mark = f'" string="{str(isinstance(value, str)).lower()}">' if row.marks_text else self._head_end()
            lines.append(f"{row.parameter}{key}{mark}{row.pad}{written}{row.pad}{row.parameter_close}\n")
        return "".join(lines)

    def _stops(self) -> tuple[str, ...]:
        row = self.row
        return (row.parameter_close, row.parameter, row.call_close, row.call, *row.wrapper)

    def _read_call(self, scan: Scan, at: int) -> int:
        """Read the call whose name begins at `at`."""
        row, text = self.row, scan.text
        name, _, inside = self._head(scan, at)
        if not name:
            scan.fail("", f"the name of the tool must follow {row.call}")
            return self._give_up(scan, at)
        arguments: dict[str, Any] = {}
        at = inside
        while text.startswith(row.parameter, scan.skip(at)):
            key, mark, inside = self._head(scan, scan.skip(at) + len(row.parameter))
            if not key:
                scan.fail(name, f"a parameter's name must follow {row.parameter}")
                return self._give_up(scan, at + 1)
            stop, token = scan.first(self._stops(), inside)
            if stop < 0:
                scan.fail(name, f"it was cut off: {row.parameter_close} of {key!r} is missing")
                return len(text)
            arguments[key] = self._value(scan, name, key, mark, text[inside:stop])
            at = stop + len(token) if token == row.parameter_close else stop
        rest = scan.skip(at)
        if text.startswith(row.call_close, rest):
            scan.add(name, arguments)
            return rest + len(row.call_close)
        if text.startswith((row.wrapper[1], row.call), rest):
            scan.add(name, arguments)
            return rest
        end = self._give_up(scan, at)
        found = text[rest:end].removesuffix(row.call_close).strip()[:40]
        scan.fail(name, f"{found!r} is no parameter" if found else f"it was cut off: {row.call_close} is missing")
        return end

    def _head(self, scan: Scan, at: int) -> tuple[str, str, int]:
        """A name that begins at `at`, the rest of its tag, and where its content begins; "" where it is none."""
        end = scan.find(">", at)
        head = scan.text[at:end] if 0 <= end <= at + 512 else ""
        if "\n" in head.strip() or "<" in head:
            head = ""
        name, _, mark = head.partition('"')
        return name.strip().strip("'"), mark, end + 1

    def _value(self, scan: Scan, name: str, key: str, mark: str, text: str) -> Any:
        text = text[text.startswith("\n") : len(text) - text.endswith("\n")] if text != "\n" else ""
        if self.row.marks_text and "string=" in mark:
            return text if "true" in mark else typed(text, frozenset())
        return typed(text, kinds_of(scan.tools, name, key))

    def _give_up(self, scan: Scan, at: int) -> int:
        """Where a malformed call is over: past its end, or where the next begins, or with the text."""
        row = self.row
        stop, token = scan.first((row.call_close, row.wrapper[1], row.wrapper[0], row.call), at)
        if stop < 0:
            return len(scan.text)
        return stop + len(token) if token == row.call_close else stop


def check_carried(name: str, key: str, written: str, closers: Sequence[str]) -> None:
    """Raises `ValueError` where a value holds what would end it."""
    for closer in closers:
        if closer in written:
            raise ValueError(f"argument {key!r} of {name!r} holds {closer!r}, which this tool format cannot carry")
