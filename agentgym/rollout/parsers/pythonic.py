"""Calls as Python writes them: `[f(a=1, b='x'), g()]`; keyword arguments and literals only."""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentgym.rollout.parsers.base import BaseParser
from agentgym.rollout.parsers.literals import literal, parse_expression
from agentgym.rollout.parsers.scan import DEEP_MISS, Scan
from agentgym.rollout.parsers.schema import knows
from agentgym.types import ToolCall

_NAME = re.compile(r"[A-Za-z_][\w.-]{0,255}(?=\s{0,8}\()")
_BARE = re.compile(r"\[\s{0,64}[A-Za-z_][\w.-]{0,255}\s{0,8}\(")
_STRING = re.compile(
    r'"""[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*"""|"[^"\\]*(?:\\.[^"\\]*)*"'
    r"|'''[^'\\]*(?:(?:\\.|'(?!''))[^'\\]*)*'''|'[^'\\]*(?:\\.[^'\\]*)*'",
    re.DOTALL,
)
_MARK = re.compile(r"""["'()\[\]{}]""")
_PARTNER = {")": "(", "]": "[", "}": "{"}
_DEEPEST = 60
_UNCLOSED = 2048  # that many misses is one that cost a look at all of the text


@dataclass(frozen=True, slots=True)
class Calls:
    """`marks`: pairs around calls, the one that is written first; `brackets`: the calls are written as a list."""

    marks: tuple[tuple[str, str], ...]
    bare: bool = True
    """A list without marks counts, and is so written."""
    brackets: bool = True


_PYTHON = ("<|python_start|>", "<|python_end|>")
TABLE: Mapping[str, Calls] = {
    "pythonic": Calls((_PYTHON,)),
    "llama_pythonic": Calls((("<|python_tag|>", ""), _PYTHON)),
    "llama4_pythonic": Calls((_PYTHON,)),
    "olmo3_pythonic": Calls((("<function_calls>", "</function_calls>"),), bare=False, brackets=False),
    "pythonic_tagged": Calls((("<tool_call>", "</tool_call>"),), bare=False, brackets=False),
    "lfm2": Calls((("<|tool_call_start|>", "<|tool_call_end|>"),), bare=False),
}


_Source = tuple[str, str]  # a call's name, and its arguments as Python


class _Bad(ValueError):
    def __init__(self, what: str, at: int, name: str = "", deep: bool = False):
        super().__init__(what)
        self.at, self.name, self.deep = at, name, deep


@dataclass(frozen=True, slots=True)
class PythonicParser(BaseParser):
    """A list nobody marked is content if it holds anything else than calls, unless it begins with one of a known
    tool: then it is a malformed call."""

    row: Calls = TABLE["pythonic"]

    @property
    def how(self) -> str:
        return f"write {self._around('NAME(parameter=value, ...)')} with keyword arguments and literals only"

    def find(self, scan: Scan, at: int) -> int:
        start, _ = scan.first([opening for opening, _ in self.row.marks], at)
        bare = scan.search(_BARE, at) if self.row.bare else -1
        return bare if start < 0 or 0 <= bare < start else start

    def read(self, scan: Scan, start: int) -> int:
        for opening, closing in self.row.marks:
            if scan.text.startswith(opening, start):
                return self._read_marked(scan, start + len(opening), opening, closing)
        calls: list[_Source] = []
        try:
            end = _read_list(scan.text, start, calls)
        except _Bad as e:
            match = _NAME.match(scan.text, scan.skip(start + 1))
            if match and knows(scan.tools, match[0]):
                _add_all(scan, calls)
                scan.fail(e.name, str(e))
                return e.at
            if e.at < len(scan.text):
                scan.misses += DEEP_MISS * e.deep
                return e.at
            # it never closed: perhaps only prose, with calls further on, but not to be searched for without end
            scan.misses += _UNCLOSED
            return start + 1
        if knows(scan.tools, calls[0][0]) or all(wrong is None for _, wrong in map(_evaluate, calls)):
            _add_all(scan, calls)
        return end

    def write(self, calls: Sequence[ToolCall]) -> str:
        separator = ", " if self.row.brackets else "\n"
        return self._around(separator.join(_write_call(call) for call in calls))

    def _around(self, calls: str) -> str:
        body = f"[{calls}]" if self.row.brackets else calls
        opening, closing = ("", "") if self.row.bare else self.row.marks[0]
        return f"{opening}{body}{closing}"

    def _read_marked(self, scan: Scan, at: int, opening: str, closing: str) -> int:
        calls: list[_Source] = []
        wrong = None
        at = scan.skip(at)
        try:
            end = _read_list(scan.text, at, calls) if scan.text.startswith("[", at) else _read_lines(scan, at, calls)
            if not calls:
                raise _Bad("there is no call in it", end)
            if closing and scan.past(closing, end) == end and end < len(scan.text):
                raise _Bad(f"text after the call: {scan.text[end : end + 40].strip()!r}", end)
        except _Bad as e:
            wrong = e
            stops = (closing, opening) if closing else (opening,)
            end, _ = scan.first(stops, e.at)
            end = len(scan.text) if end < 0 else end
        _add_all(scan, calls)
        if wrong is not None:
            scan.fail(wrong.name, str(wrong))
        return scan.past(closing, end)


def _read_list(text: str, at: int, calls: list[_Source]) -> int:
    """Read the list whose bracket stands at `at` into `calls`; return where it ends."""
    at = _skip(text, at + 1)
    while True:
        at = _skip(text, _read_call(text, at, calls))
        if text.startswith(",", at):
            at = _skip(text, at + 1)
        elif not text.startswith("]", at):
            raise _Bad("it was cut off: ] is missing" if at >= len(text) else "] or , is missing after a call", at)
        if text.startswith("]", at):
            return at + 1


def _read_lines(scan: Scan, at: int, calls: list[_Source]) -> int:
    """Read calls that follow each other, on lines of their own or with `,` or `;` between."""
    while True:
        at = _read_call(scan.text, at, calls)
        following = scan.skip(at)
        if scan.text[following : following + 1] in (",", ";"):
            following = scan.skip(following + 1)
        if not _NAME.match(scan.text, following):
            return at
        at = following


def _read_call(text: str, at: int, calls: list[_Source]) -> int:
    match = _NAME.match(text, at)
    if match is None:
        raise _Bad(f"expected NAME(...), got {text[at : at + 40]!r}" if at < len(text) else "it was cut off", at)
    name = match[0]
    source, end = _arguments_of(text, match.end(), name)
    calls.append((name, source))
    return end


def _add_all(scan: Scan, calls: Sequence[_Source]) -> None:
    for call in calls:
        arguments, wrong = _evaluate(call)
        scan.add(call[0], arguments, wrong=wrong)


def _evaluate(call: _Source) -> tuple[dict[str, Any], str | None]:
    """The arguments, or what is wrong with them."""
    try:
        return (_arguments(call[1]) if call[1].strip() else {}), None
    except (ValueError, RecursionError) as e:
        return {}, str(e) if isinstance(e, ValueError) else "it is nested too deeply"


def _arguments_of(text: str, at: int, name: str) -> tuple[str, int]:
    """What stands between the parentheses that open at `at` (blanks before), as Python takes it, and where they end."""
    begin = at = text.index("(", at)
    open_marks: list[str] = []
    parts: list[str] = []
    while True:
        match = _MARK.search(text, at)
        if match is None:
            raise _Bad("it was cut off: a closing bracket is missing", len(text), name)
        mark, found = match[0], match.start()
        if mark in "\"'":
            string = _STRING.match(text, found)
            if string is None:
                raise _Bad("it was cut off: a string does not end", len(text), name)
            parts += [text[at:found], _one_line(string[0])]
            at = string.end()
            continue
        if mark in _PARTNER:
            if open_marks.pop() != _PARTNER[mark]:
                raise _Bad(f"{mark} closes nothing", found, name)
            if not open_marks:
                return "".join([*parts, text[at:found]])[1:], found + 1
        else:
            open_marks.append(mark)
            if len(open_marks) > _DEEPEST:
                raise _Bad("it is nested too deeply", found, name, deep=True)
        parts.append(text[at : found + 1] if found >= begin else "")
        at = found + 1


def _one_line(string: str) -> str:
    """Models write raw line breaks into strings; Python takes them only in triple quotes."""
    if string.startswith(('"""', "'''")) or not ("\n" in string or "\r" in string):
        return string
    return string.replace("\\\n", "\\\\\n").replace("\r", "\\r").replace("\n", "\\n")


def _arguments(source: str) -> dict[str, Any]:
    call = parse_expression(f"f({source}\n)")
    if not isinstance(call, ast.Call):
        raise ValueError("it is no call")
    if call.args:
        raise ValueError("arguments must be given by keyword")
    arguments: dict[str, Any] = {}
    for item in call.keywords:
        value = literal(item.value)
        if item.arg is not None:
            arguments[item.arg] = value
        elif isinstance(value, dict):
            arguments.update(value)
        else:
            raise ValueError("only a dict can follow **")
    return arguments


def _write_call(call: ToolCall) -> str:
    plain = {key: value for key, value in call.arguments.items() if _is_keyword(key)}
    others = {key: value for key, value in call.arguments.items() if key not in plain}
    written = [f"{key}={value!r}" for key, value in plain.items()] + ([f"**{others!r}"] if others else [])
    return f"{call.name or 'unknown'}({', '.join(written)})"


def _is_keyword(key: str) -> bool:
    return key.isascii() and key.isidentifier() and not keyword.iskeyword(key)


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at
