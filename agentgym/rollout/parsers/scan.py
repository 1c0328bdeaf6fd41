"""What every format reads with: a text that is searched in linear time, JSON out of it, and the calls found so far."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from agentgym.types import ToolCall

BLANK = " \t\r\n"
_WINDOW = 1024
_MOST_CALLS = 4096
_MOST_MISSES = 8192
DEEP_MISS = 256
"""What is nested deeply is looked at again and again: so many misses is one of these."""


@dataclass(slots=True)
class Scan:
    """One text being taken apart; `how` says how a call is written right, and ends every error."""

    text: str
    how: str
    tools: Sequence[Mapping[str, Any]] = ()
    id_prefix: str = "call_"
    calls: list[ToolCall] = field(default_factory=list)
    misses: int = 0
    """Openings that no call followed."""
    _seen: dict[str, tuple[int, int]] = field(default_factory=dict)
    _escapes: bool = False

    def __post_init__(self) -> None:
        self._escapes = "\\" in self.text

    @property
    def full(self) -> bool:
        """No message means that many calls, or begins so many and makes none: it is not read further."""
        return len(self.calls) >= _MOST_CALLS or self.misses >= _MOST_MISSES

    def stop(self) -> None:
        """Tell a model that repeats itself."""
        if len(self.calls) >= _MOST_CALLS:
            self.fail("", f"more than {_MOST_CALLS} calls in one message; what follows was not read")

    def find(self, token: str, at: int) -> int:
        """Where `token` next stands, or -1. What was found, or not, is remembered: asking again and again for a token
        that is far away, or nowhere, does not search the text again and again."""
        asked, found = self._seen.get(token, (0, -2))
        if found != -2 and asked <= at and (found == -1 or at <= found):
            return found
        found = self.text.find(token, at)
        self._seen[token] = (at, found)
        return found

    def first(self, tokens: Sequence[str], at: int) -> tuple[int, str]:
        """The first of `tokens` at or after `at` and where it stands (the longest of those there); (-1, "") if none."""
        best, which = -1, ""
        for token in tokens:
            found = self.find(token, at)
            if found >= 0 and (best < 0 or found < best or (found == best and len(token) > len(which))):
                best, which = found, token
        return best, which

    def search(self, pattern: re.Pattern[str], at: int) -> int:
        """As `find`, for a pattern (one that does not backtrack)."""
        asked, found = self._seen.get(pattern.pattern, (0, -2))
        if found == -2 or at < asked or 0 <= found < at:
            match = pattern.search(self.text, at)
            found = match.start() if match else -1
            self._seen[pattern.pattern] = (at, found)
        return found

    def skip(self, at: int) -> int:
        """Past blanks."""
        text = self.text
        while at < len(text) and text[at] in BLANK:
            at += 1
        return at

    def past(self, token: str, at: int) -> int:
        """Past blanks and `token`, if that is what stands at `at`; else `at`."""
        after = self.skip(at)
        return after + len(token) if token and self.text.startswith(token, after) else at

    def add(self, name: str, arguments: Mapping[str, Any], call_id: str = "", *, wrong: str | None = None) -> None:
        """A call that was read; `wrong`: what is the matter with it all the same."""
        if self._escapes and not _encodable(name, arguments):
            # half of a surrogate pair is no text: it could be neither stored nor tokenised
            name, arguments = name.encode(errors="replace").decode(), {}
            wrong = "invalid \\u escape (half of a surrogate pair)"
        error = f"malformed tool call: {wrong}; {self.how}" if wrong else None
        self.calls.append(ToolCall(self._id(call_id), name, dict(arguments), error))

    def fail(self, name: str, wrong: str) -> None:
        """A call that could not be read."""
        self.add(name, {}, wrong=wrong)

    def _id(self, call_id: str) -> str:
        if call_id and all(call.id != call_id for call in self.calls[-64:]):
            return call_id
        return f"{self.id_prefix}{len(self.calls)}"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is too large a number")
    return value


# strict=False: models write raw newlines inside strings; NaN would make stored trajectories invalid JSON
_decoder = json.JSONDecoder(strict=False, parse_constant=_refuse_constant, parse_float=_finite)


class BadJson(ValueError):
    """Not JSON: what is wrong, and where it went wrong (an index into the text); `deep`: it is nested too deeply."""

    def __init__(self, what: str, at: int, deep: bool = False):
        super().__init__(what)
        self.at, self.deep = at, deep


def read_json(text: str, at: int) -> tuple[Any, int]:
    """The JSON value that stands at `at` and where it ends; raises `BadJson`.

    The text is read in windows that grow: an error costs what was read, not a look at all that stands before it.
    """
    size = _WINDOW
    while True:
        window = text[at : at + size]
        whole = at + size >= len(text)
        try:
            value, end = _decoder.raw_decode(window)
            if whole or end < len(window):
                return value, at + end
        except json.JSONDecodeError as e:
            if whole or (e.pos < len(window) - 16 and not e.msg.startswith("Unterminated")):
                raise BadJson(f"{e.msg} at character {e.pos}", at + e.pos) from None
        except RecursionError:
            # so deep it is: at least that many characters were read
            raise BadJson("it is nested too deeply", min(len(text), at + 200), deep=True) from None
        except ValueError as e:
            raise BadJson(str(e).partition(";")[0], min(len(text), at + 1)) from None
        size *= 4


def read_plain(text: str, at: int) -> tuple[Any, int]:
    """As `read_json`, for a short text and without saying what is wrong: then the value is None."""
    try:
        return _decoder.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None, at


def load_json(text: str) -> Any:
    """All of `text` as one JSON value; raises `BadJson`."""
    stripped = text.strip(BLANK)
    value, end = read_json(stripped, 0)
    if end < len(stripped):
        raise BadJson(f"text after the JSON value: {stripped[end:].strip()[:40]!r}", end)
    return value


def read_arguments(name: str, value: Any) -> tuple[dict[str, Any], str | None]:
    """The arguments of a call, an object or one written as text; or what is wrong with them."""
    if isinstance(value, str):
        try:
            value = load_json(value) if value else {}
        except BadJson as e:
            return {}, f"arguments of {name!r} are not valid JSON: {e}"
    if value is None:
        return {}, None
    if not isinstance(value, dict):
        return {}, f"arguments of {name!r} must be a JSON object, got {type(value).__name__}"
    return value, None


def guess_name(body: str) -> str:
    """The tool's name in a body that is not JSON, or "": the env's answer can then name it."""
    _, key, rest = body[:_WINDOW].partition('"name"')
    _, colon, rest = rest.partition(":")
    _, quote, rest = rest.partition('"')
    name, closing, _ = rest.partition('"')
    return name if key and colon and quote and closing and len(name) <= 64 and name.isprintable() else ""


def _encodable(name: str, arguments: Mapping[str, Any]) -> bool:
    try:
        (name + json.dumps(arguments, ensure_ascii=False)).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True
