"""How models write tool calls: one file per format, found by name or by the chat template."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any

from agentgym.protocols import ParsedCalls, Parser

_FORMATS: dict[str, str] = {
    "hermes": "agentgym.rollout.parsers.hermes:HermesParser",
}

# (format, texts that must all be in the template); the first row that fits wins
_MARKERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("qwen_xml", ("<tool_call>", "<function=", "<parameter=")),
    ("glm", ("<tool_call>", "<arg_key>")),
    ("hermes", ("<tool_call>",)),
    ("harmony", ("<|channel|>", "<|call|>")),
    ("gemma4", ("<|tool_call>",)),
    ("deepseek", ("<｜tool▁calls▁begin｜>",)),
    ("mistral", ("[TOOL_CALLS]",)),
    ("lfm2", ("<|tool_call_start|>",)),
    ("llama3", ("<|python_tag|>",)),
    ("llama3", ("<|start_header_id|>", '"parameters"')),
)


def known_formats() -> list[str]:
    """The names `get_parser` takes."""
    return sorted(_FORMATS)


@cache
def get_parser(name: str, thinking_open: bool = False) -> Parser:
    """The parser of a tool-call format; raises `ValueError` naming the known ones.

    `thinking_open`: the chat template's generation prompt already opens the reasoning (`ChatRenderer.opens_thinking`).
    """
    target = _FORMATS.get(name)
    if target is None:
        close = difflib.get_close_matches(name, _FORMATS, n=1, cutoff=0.4)
        family = any(name == known for known, _ in _MARKERS)
        what = f"no parser yet for tool format {name!r}" if family else f"unknown tool format {name!r}"
        nearest = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{what}{nearest} (known: {', '.join(known_formats())})")
    module, _, cls = target.partition(":")
    parser: Parser = getattr(import_module(module), cls)(thinking_open)
    return parser


def detect_format(chat_template: str) -> str:
    """The format a chat template writes tool calls in; `hermes`, the most common one, where it shows none.

    The answer may be a format that has no parser yet: `get_parser` then says so.
    """
    for name, texts in _MARKERS:
        if all(text in chat_template for text in texts):
            return name
    return "hermes"


def parse_tool_calls(text: str, format: str, tools: Sequence[Mapping[str, Any]] | None = None) -> ParsedCalls:
    """Take a model's text apart: calls (malformed ones carry `error`), content, reasoning.

    Raises `ValueError` for an unknown `format`, and on no text whatever.
    """
    return get_parser(format).parse(text, tools or ())
