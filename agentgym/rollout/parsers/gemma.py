"""Gemma 4: `call:NAME{key:<|"|>text<|"|>,n:1,on:true,list:[...],object:{...}}`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from agentgym.rollout.parsers.base import END_THINK, THINK, BaseParser
from agentgym.rollout.parsers.elements import check_carried
from agentgym.rollout.parsers.scan import BadJson, Scan, read_json
from agentgym.types import ToolCall

OPEN, CLOSE, QUOTE = "<|tool_call>", "<tool_call|>", '<|"|>'
_CALL = re.compile(r"(?<![\w.:-])call:[\w.:-]{1,256}\{")
_KEY = re.compile(r"([^\s:,{}\[\]<>\"]{1,256})\s{0,8}:")
_WORDS = {"true": True, "false": False, "null": None, "None": None, "True": True, "False": False}
_WORD = re.compile(r"(?:true|false|null|None|True|False)(?!\w)")
_DEEPEST = 60


@dataclass(frozen=True, slots=True)
class GemmaParser(BaseParser):
    """The markers around a call may be missing."""

    thoughts: ClassVar[tuple[tuple[str, str], ...]] = (("<|channel>thought", "<channel|>"), (THINK, END_THINK))

    @property
    def how(self) -> str:
        return f"write {OPEN}call:NAME{{key:{QUOTE}text{QUOTE},other:1}}{CLOSE}"

    def find(self, scan: Scan, at: int) -> int:
        start = scan.find(OPEN, at)
        bare = scan.search(_CALL, at)
        return bare if start < 0 or 0 <= bare < start else start

    def read(self, scan: Scan, start: int) -> int:
        at = scan.past(OPEN, start)
        match = _CALL.match(scan.text, scan.skip(at))
        if match is None:
            scan.fail("", "call:NAME{...} is missing")
            return self._give_up(scan, at)
        name = match[0][len("call:") : -1]
        try:
            arguments, end = _object(scan, match.end(), 0)
        except BadJson as e:
            cut = "it was cut off: " if e.at >= len(scan.text) else ""
            scan.fail(name, f"{cut}{e} at character {e.at - match.start()}")
            return self._give_up(scan, e.at)
        scan.add(name, arguments)
        return scan.past(CLOSE, end)

    def write(self, calls: Sequence[ToolCall]) -> str:
        return "".join(
            f"{OPEN}call:{call.name}{_write(call, dict(call.arguments), bare=True)}{CLOSE}" for call in calls
        )

    def _give_up(self, scan: Scan, at: int) -> int:
        stop, token = scan.first((CLOSE, OPEN), at)
        if stop < 0:
            return len(scan.text)
        return stop + len(CLOSE) if token == CLOSE else stop


def _object(scan: Scan, at: int, depth: int) -> tuple[dict[str, Any], int]:
    """Read the object whose brace ends at `at`; also where it ends. Raises `BadJson`."""
    found: dict[str, Any] = {}
    at = scan.skip(at)
    while not scan.text.startswith("}", at):
        if scan.text.startswith(QUOTE, at):
            key, at = _text(scan, at)
            at = scan.past(":", at)
        elif match := _KEY.match(scan.text, at):
            key, at = match[1], match.end()
        else:
            raise BadJson("expected key:value", at)
        found[key], at = _value(scan, scan.skip(at), depth)
        at = _separated(scan, at, "}")
    return found, at + 1


def _list(scan: Scan, at: int, depth: int) -> tuple[list[Any], int]:
    found: list[Any] = []
    at = scan.skip(at)
    while not scan.text.startswith("]", at):
        value, at = _value(scan, at, depth)
        found.append(value)
        at = _separated(scan, at, "]")
    return found, at + 1


def _value(scan: Scan, at: int, depth: int) -> tuple[Any, int]:
    text = scan.text
    if depth > _DEEPEST:
        raise BadJson("it is nested too deeply", at)
    if text.startswith("{", at):
        return _object(scan, at + 1, depth + 1)
    if text.startswith("[", at):
        return _list(scan, at + 1, depth + 1)
    if text.startswith(QUOTE, at):
        return _text(scan, at)
    if match := _WORD.match(text, at):
        return _WORDS[match[0]], match.end()
    return read_json(text, at)


def _text(scan: Scan, at: int) -> tuple[str, int]:
    begin = at + len(QUOTE)
    end = scan.find(QUOTE, begin)
    if end < 0:
        raise BadJson(f"{QUOTE} is missing", len(scan.text))
    return scan.text[begin:end], end + len(QUOTE)


def _separated(scan: Scan, at: int, closing: str) -> int:
    """Past the comma after an item, or before `closing`."""
    at = scan.skip(at)
    if scan.text.startswith(",", at):
        return scan.skip(at + 1)
    if not scan.text.startswith(closing, at):
        raise BadJson(f"expected , or {closing}", at)
    return at


def _write(call: ToolCall, value: Any, *, bare: bool = False) -> str:
    if isinstance(value, str):
        check_carried(call.name, "", value, (QUOTE,))
        return f"{QUOTE}{value}{QUOTE}"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, Mapping):
        pairs = [f"{_write_key(call, key, bare)}:{_write(call, item)}" for key, item in value.items()]
        return f"{{{','.join(pairs)}}}"
    if isinstance(value, Sequence):
        return f"[{','.join(_write(call, item) for item in value)}]"
    return str(value)


def _write_key(call: ToolCall, key: str, bare: bool) -> str:
    match = _KEY.match(f"{key}:") if bare else None
    return key if match and match[1] == key else _write(call, key)
