"""GLM: `<tool_call>NAME<arg_key>K</arg_key><arg_value>V</arg_value></tool_call>`; values are bare text."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agentgym.rollout.parsers.base import BaseParser
from agentgym.rollout.parsers.elements import check_carried
from agentgym.rollout.parsers.scan import Scan
from agentgym.rollout.parsers.schema import kinds_of, typed
from agentgym.types import ToolCall

OPEN, CLOSE = "<tool_call>", "</tool_call>"
KEY, END_KEY, VALUE, END_VALUE = "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"
# a call that lost its opening: a name right before the first key
_BODY = re.compile(r"(?<![\w.:/>-])[\w.:/-]{1,256}\s{0,8}<arg_key>")


@dataclass(frozen=True, slots=True)
class PairsParser(BaseParser):
    """`lines`: name and arguments are written on lines of their own (GLM 4.5), or without any break (4.7)."""

    lines: bool = True

    @property
    def how(self) -> str:
        return f"write {OPEN}NAME{KEY}PARAMETER{END_KEY}{VALUE}VALUE{END_VALUE}{CLOSE}"

    def find(self, scan: Scan, at: int) -> int:
        start = scan.find(OPEN, at)
        key = scan.find(KEY, at)
        if key < 0 or 0 <= start < key:
            return start
        body = scan.search(_BODY, at)
        return body if start < 0 or 0 <= body < start else start

    def read(self, scan: Scan, start: int) -> int:
        text = scan.text
        at = scan.past(OPEN, start)
        stop, token = scan.first((KEY, VALUE, CLOSE, OPEN), at)
        name = text[at : len(text) if stop < 0 else stop].strip()
        if not name or len(name) > 256 or re.search(r"[\s{}<>\"]", name):
            scan.fail("", f"the name of the tool must follow {OPEN}")
            return self._give_up(scan, at)
        if token not in (KEY, CLOSE):
            scan.fail(name, f"it was cut off: {CLOSE} is missing" if not token else f"{token} where {KEY} must stand")
            return self._give_up(scan, at)
        arguments: dict[str, Any] = {}
        at = stop
        while text.startswith(KEY, scan.skip(at)):
            inside = scan.skip(at) + len(KEY)
            key_end, token = scan.first((END_KEY, VALUE, KEY, CLOSE, OPEN), inside)
            begins = scan.past(VALUE, key_end + len(END_KEY)) if token == END_KEY else -1
            if begins < 0 or begins == key_end + len(END_KEY):
                what = "it was cut off" if key_end < 0 or key_end + len(END_KEY) >= len(text) else "a key has no value"
                scan.fail(name, f"{what}: {KEY}, {END_KEY}, {VALUE}, {END_VALUE} must follow each other")
                return self._give_up(scan, inside)
            stop, token = scan.first((END_VALUE, KEY, CLOSE, OPEN), begins)
            if stop < 0:
                scan.fail(name, f"it was cut off: {END_VALUE} is missing")
                return len(text)
            key = text[inside:key_end].strip()
            arguments[key] = typed(text[begins:stop], kinds_of(scan.tools, name, key))
            at = stop + len(END_VALUE) if token == END_VALUE else stop
        rest = scan.skip(at)
        closed = text.startswith(CLOSE, rest)
        if closed or (rest == len(text) and not text.startswith(OPEN, start)):
            scan.add(name, arguments)
            return rest + len(CLOSE) * closed
        end = self._give_up(scan, at)
        found = text[rest:end].removesuffix(CLOSE).strip()[:40]
        scan.fail(name, f"{found!r} where {KEY} or {CLOSE} must stand" if found else f"{CLOSE} is missing")
        return end

    def write(self, calls: Sequence[ToolCall]) -> str:
        line = "\n" if self.lines else ""
        return line.join(f"{OPEN}{call.name}{line}{self._body(call, line)}{CLOSE}" for call in calls)

    def _body(self, call: ToolCall, line: str) -> str:
        written = []
        for key, value in call.arguments.items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            check_carried(call.name, key, text, (END_VALUE, KEY, CLOSE, OPEN))
            check_carried(call.name, key, key, (END_KEY, VALUE, KEY, CLOSE, OPEN))
            written.append(f"{KEY}{key}{END_KEY}{line}{VALUE}{text}{END_VALUE}{line}")
        return "".join(written)

    def _give_up(self, scan: Scan, at: int) -> int:
        stop, token = scan.first((CLOSE, OPEN), at)
        if stop < 0:
            return len(scan.text)
        return stop + len(CLOSE) if token == CLOSE else stop
