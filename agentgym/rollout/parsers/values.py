"""Calls as JSON values that follow each other: objects, arrays of them, or both, with `,` or `;` between."""

from __future__ import annotations

from typing import Any

from agentgym.rollout.parsers.hermes import add_call
from agentgym.rollout.parsers.scan import DEEP_MISS, BadJson, Scan, guess_name, read_json


def unwrap(body: Any) -> Any:
    """The `{"name": ..., "arguments": ...}` in OpenAI's `{"type": "function", "function": {...}}`, or in what small
    models make of it, `{"function": "NAME", ...}`."""
    inner = body.get("function") if isinstance(body, dict) else None
    if isinstance(inner, str) and "name" not in body:
        return {**body, "name": inner}
    return inner if isinstance(inner, dict) else body


def is_call(body: Any) -> bool:
    """Whether an object nobody announced says that it is a call."""
    inner = unwrap(body)
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        return False
    return "arguments" in inner or "parameters" in inner


def read_values(scan: Scan, at: int) -> int:
    """Add the calls of the values at `at`, which were announced as calls; return where the last value ends.

    Raises `BadJson` where the first of them is none, and where a further one is broken."""
    while True:
        value, at = read_json(scan.text, at)
        for body in value if isinstance(value, list) else [value]:
            add_call(scan, unwrap(body))
        following = after_separator(scan, at)
        if following < 0:
            return at
        at = following


def read_bare_values(scan: Scan, at: int) -> int:
    """The same for values that nobody announced: they are calls only if they say so. Never raises."""
    begin = at
    while True:
        try:
            value, end = read_json(scan.text, at)
        except BadJson as e:
            scan.misses += DEEP_MISS * e.deep
            body = scan.text[at : at + 4096]
            name = guess_name(body)
            meant = name and ('"parameters"' in body or '"arguments"' in body)
            if meant:
                cut = "it was cut off: " if e.at >= len(scan.text) or str(e).startswith("Unterminated") else ""
                scan.fail(name, f"{cut}invalid JSON: {e}")
            return max(e.at, at + 1) if meant or at == begin else at
        bodies = value if isinstance(value, list) else [value]
        if not bodies or not all(is_call(body) for body in bodies):
            return end if at == begin else at
        for body in bodies:
            add_call(scan, unwrap(body))
        following = after_separator(scan, end)
        if following < 0:
            return end
        at = following


def after_separator(scan: Scan, at: int) -> int:
    """Where a further value begins after one that ended at `at`, or -1."""
    at = scan.skip(at)
    if at < len(scan.text) and scan.text[at] in ",;":
        at = scan.skip(at + 1)
    return at if scan.text.startswith(("{", "["), at) else -1
