"""Promises that hold for every format: it inverts what it writes, raises on no text, and no text is slow."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgym.rollout.parsers import get_parser, known_formats
from agentgym.types import Message, ToolCall

MARKERS = [
    *("<tool_call>", "</tool_call>", "<think>", "</think>", "<function=f>", "</function>", "<parameter=a>"),
    *("</parameter>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"),
    *("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>"),
    *("<｜tool▁call▁end｜>", "<｜tool▁sep｜>"),
    *("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", "<|tool_call_begin|>", "<|tool_call_end|>"),
    *("<|tool_call_argument_begin|>", "functions.f:0", "<|channel|>", "<|message|>", "<|start|>", "<|end|>"),
    *("<|call|>", "<|constrain|>", "analysis", "commentary", " to=functions.f", "```", "```json\n", "```tool_call\n"),
    *("<|python_tag|>", "<|python_start|>", "<|python_end|>", "<function_calls>", "</function_calls>", "[f(a=1)]"),
    *("[f(", "f(a='x')", ")]", "'''", "**{", "0x1", "-", "1e999", "functools", "<tool_calls>", "</tool_calls>"),
    *("<seed:tool_call>", "<seed:think>", "<minimax:tool_call>", '<invoke name="', '<parameter name="', '">'),
    *('<｜DSML｜invoke name="', '<｜DSML｜parameter name="a" string="true">', "call:f{", '<|"|>', "<|tool_call>"),
    *("<tool_call|>", "[THINK]", "[/THINK]", "<|channel>thought", "<channel|>", "<|action_start|>", "<|plugin|>"),
    *('{"name": "f", "arguments": {}}', '{"name": "f", "parameters": {"a": 1}}', '{"tool_calls": [', '"arguments": "'),
    *('"', "'", "{", "}", "[", "]", "(", ")", "\\", "\\ud800", "\n", " ", ",", ";", ":", "=", "f", "NaN", "99", "é"),
]  # fmt: skip
TOOLS = [{"function": {"name": "f", "parameters": {"properties": {"a": {"type": "integer"}}}}}, {"function": 3}, {}]
NOISE = st.lists(st.one_of(st.sampled_from(MARKERS), st.text(max_size=5)), max_size=16).map("".join)


def check_text(name: str, text: str, thinking_open: bool = False) -> None:
    parsed = get_parser(name, thinking_open).parse(text, TOOLS if len(text) % 2 else ())
    assert parsed.errors == tuple(call.error for call in parsed.calls if call.error)
    assert len({call.id for call in parsed.calls}) == len(parsed.calls)
    json.dumps(parsed.message().to_openai(), ensure_ascii=False, allow_nan=False).encode()


@given(st.sampled_from(known_formats()), NOISE, st.booleans())
@settings(max_examples=200)
def test_no_text_raises(name: str, text: str, thinking_open: bool) -> None:
    check_text(name, text, thinking_open)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@given(st.sampled_from(known_formats()), NOISE, st.booleans())
@settings(max_examples=20_000)
def test_no_text_of_many_raises(name: str, text: str, thinking_open: bool) -> None:
    """Each text and nine cuts of it: 200,000 in all."""
    for i in range(10):
        cut = len(text) * i // 10
        check_text(name, text[cut:] if i % 2 else text[: len(text) - cut], thinking_open)


# Text that holds nothing a format might take for its own
PLAIN = st.text(st.characters(categories=["Lu", "Ll", "Nd", "Zs"], include_characters=".,!?é-+/"), max_size=30)
WORDS = PLAIN.map(str.strip)
NUMBERS = st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
ANY_TEXT = st.text(max_size=20) | st.sampled_from(MARKERS)
NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,11}", fullmatch=True).filter(lambda name: name != "null")


def arguments_of(texts: st.SearchStrategy[str], keys: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    values = st.recursive(
        st.none() | NUMBERS | texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=6,
    )
    return st.dictionaries(keys, values, max_size=3)


BARE_TEXT = {
    "qwen3_coder_xml",
    "qwen3_xml",
    "step3p5",
    "seed_oss",
    "minimax_m2",
    "deepseek_v3.2_dsml",
    "glm45",
    "glm47",
}
CARRIES_ANY = sorted(set(known_formats()) - BARE_TEXT - {"gemma4"})


def schema_of(calls: tuple[ToolCall, ...]) -> list[dict[str, Any]]:
    """Tools whose schema tells text from all else, as the formats of bare text need it."""
    tools = []
    for call in calls:
        types = {key: {"type": "string"} if isinstance(value, str) else {} for key, value in call.arguments.items()}
        tools.append({"type": "function", "function": {"name": call.name, "parameters": {"properties": types}}})
    return tools


def check_round_trip(
    name: str, content: str, reasoning: str | None, calls: list[tuple[str, dict[str, Any]]], tools: bool
) -> None:
    ids = [f"functions.{function}:{i}" if name == "kimi_k2" else f"call_{i}" for i, (function, _) in enumerate(calls)]
    made = tuple(ToolCall(call_id, *call) for call_id, call in zip(ids, calls, strict=True))
    message = Message("assistant", content, reasoning=reasoning, tool_calls=made)
    parser = get_parser(name)
    assert parser.parse(parser.format(message), schema_of(made) if tools else ()).message() == message


@given(
    st.sampled_from(CARRIES_ANY),
    WORDS,
    st.none() | WORDS,
    st.lists(st.tuples(NAMES, arguments_of(ANY_TEXT, st.text(max_size=8))), max_size=3),
)
@settings(max_examples=250)
def test_parse_inverts_format(name: str, content: str, reasoning: str | None, calls: list[Any]) -> None:
    check_round_trip(name, content, reasoning, calls, tools=False)


@given(
    st.sampled_from([*sorted(BARE_TEXT), "gemma4"]),
    WORDS,
    st.none() | WORDS,
    st.lists(
        st.tuples(
            NAMES, arguments_of(st.text(st.characters(exclude_characters="<", exclude_categories=["Cs"])), NAMES)
        ),
        max_size=3,
        unique_by=lambda call: call[0],
    ),
)
@settings(max_examples=150)
def test_parse_inverts_format_where_values_are_bare(
    name: str, content: str, reasoning: str | None, calls: list[Any]
) -> None:
    check_round_trip(name, content, reasoning, calls, tools=True)


@pytest.mark.parametrize("name", sorted(BARE_TEXT))
def test_what_a_format_cannot_carry_is_said(name: str) -> None:
    parser = get_parser(name)
    closers = "</parameter></｜DSML｜parameter></arg_value>"
    with pytest.raises(ValueError, match=r"argument 'a' of 'f' holds '<.*cannot carry"):
        parser.format(Message("assistant", tool_calls=(ToolCall("c", "f", {"a": closers}),)))


HOSTILE = [
    *MARKERS,
    *("<tool_call>{", '<tool_call>{"name": "', "<function=f><parameter=a>x", "f<arg_key>", "[TOOL_CALLS]f{", "f[ARGS]"),
    *("<｜tool▁call▁begin｜>f<｜tool▁sep｜>", "<|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{"),
    *("<|start|>assistant to=functions.f<|channel|>commentary<|message|>", "```tool_call\n{", "```json\n{"),
    *('{"name":', '{"name": "f", "parameters": {', "[f(a='", "[f(a=[", "[f(')]", "[ f", "call:f{a:", "[f(a=1), "),
]


@pytest.mark.parametrize("name", known_formats())
def test_no_text_hangs(name: str) -> None:
    for piece in HOSTILE:
        get_parser(name).parse(piece * (10_000 // len(piece)))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", known_formats())
def test_no_long_text_hangs(name: str) -> None:
    for piece in HOSTILE:
        started = time.process_time()
        get_parser(name).parse(piece * (1_000_000 // len(piece)))
        # quadratic time would be minutes: the limit is far from what a busy machine needs
        assert time.process_time() - started < 30, piece


def test_a_model_that_repeats_itself_is_told() -> None:
    calls = get_parser("qwen3_xml").parse("<function=f></function>" * 10_000).calls
    assert len(calls) < 10_000
    assert calls[-1].error is not None
    assert "calls in one message" in calls[-1].error
