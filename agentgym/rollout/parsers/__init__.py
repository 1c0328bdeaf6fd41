"""How models write tool calls: found by name or by the chat template. A file is a kind of format, a row a format."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

from agentgym.protocols import ParsedCalls, Parser
from agentgym.rollout.parsers import elements, pythonic, sections, tagged
from agentgym.rollout.parsers.fenced import FencedParser
from agentgym.rollout.parsers.gemma import GemmaParser
from agentgym.rollout.parsers.harmony import HarmonyParser
from agentgym.rollout.parsers.hermes import HermesParser
from agentgym.rollout.parsers.mistral import MistralParser
from agentgym.rollout.parsers.native import NativeParser
from agentgym.rollout.parsers.pairs import PairsParser

_FORMATS: dict[str, Callable[[bool], Parser]] = {
    "hermes": HermesParser,
    "mistral": MistralParser,
    "mistral_v11": partial(MistralParser, named=True),
    "glm45": PairsParser,
    "glm47": partial(PairsParser, lines=False),
    "gpt_oss_harmony": HarmonyParser,
    "fenced": FencedParser,
    "gemma4": GemmaParser,
    "native": NativeParser,
    **{name: partial(elements.ElementsParser, row=row) for name, row in elements.TABLE.items()},
    **{name: partial(pythonic.PythonicParser, row=row) for name, row in pythonic.TABLE.items()},
    **{name: partial(sections.SectionParser, section=row) for name, row in sections.TABLE.items()},
    **{name: partial(tagged.TaggedParser, tags=row) for name, row in tagged.TABLE.items()},
}

# (format, texts that must all be in the template); the first row that fits wins
_MARKERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("seed_oss", ("<seed:tool_call>",)),
    ("qwen3_coder_xml", ("<tool_call>", "<function=", "<parameter=")),
    ("glm47", ("<tool_call>", "</arg_key><arg_value>")),
    ("glm45", ("<tool_call>", "<arg_key>")),
    ("gpt_oss_harmony", ("<|channel|>", "<|call|>")),
    ("gemma4", ("<|tool_call>",)),
    ("kimi_k2", ("<|tool_calls_section_begin|>",)),
    ("deepseek_v3.2_dsml", ("<｜DSML｜",)),
    ("deepseek_v3", ("<｜tool▁calls▁begin｜>", "```json")),
    ("deepseek_v3.1", ("<｜tool▁calls▁begin｜>",)),
    ("mistral_v11", ("[TOOL_CALLS]", "[ARGS]")),
    ("mistral", ("[TOOL_CALLS]",)),
    ("lfm2", ("<|tool_call_start|>",)),
    ("minimax_m2", ("<minimax:tool_call>",)),
    ("internlm2", ("<|action_start|>", "<|plugin|>")),
    ("granite", ("<|tool_call|>",)),
    ("hermes", ("<tool_call>",)),
    ("olmo3_pythonic", ("<function_calls>",)),
    ("jamba", ("<tool_calls>",)),
    ("llama4_pythonic", ("<|python_start|>",)),
    ("llama4_pythonic", ("<|header_start|>", "[func_name1(")),
    ("llama3_json", ("<|python_tag|>",)),
    ("llama3_json", ("<|start_header_id|>", '"parameters"')),
    ("phi4_mini", ("functools[",)),
)


def known_formats() -> list[str]:
    """The names `get_parser` takes."""
    return sorted(_FORMATS)


@cache
def get_parser(name: str, thinking_open: bool = False) -> Parser:
    """The parser of a tool-call format; raises `ValueError` naming the known ones.

    `thinking_open`: the chat template's generation prompt already opens the reasoning (`ChatRenderer.opens_thinking`).
    """
    make = _FORMATS.get(name)
    if make is None:
        close = difflib.get_close_matches(name, _FORMATS, n=1, cutoff=0.4)
        family = any(name == known for known, _ in _MARKERS)
        what = f"no parser yet for tool format {name!r}" if family else f"unknown tool format {name!r}"
        nearest = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{what}{nearest} (known: {', '.join(known_formats())})")
    return make(thinking_open)


def detect_format(chat_template: str) -> str:
    """The format a chat template writes tool calls in; `hermes`, the most common one, where it shows none."""
    for name, texts in _MARKERS:
        if all(text in chat_template for text in texts):
            return name
    return "hermes"


def parse_tool_calls(text: str, format: str, tools: Sequence[Mapping[str, Any]] | None = None) -> ParsedCalls:
    """Take a model's text apart: calls (malformed ones carry `error`), content, reasoning.

    Raises `ValueError` for an unknown `format`, and on no text whatever.
    """
    return get_parser(format).parse(text, tools or ())
