"""The Hermes format: what models write, what they get wrong, and the inverse."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentgym.rollout.parsers.base import BaseParser
from agentgym.rollout.parsers.hermes import HermesParser
from agentgym.types import Message, ToolCall

PARSER, OPEN = HermesParser(), HermesParser(thinking_open=True)
ONE = '<tool_call>\n{"name": "lookup", "arguments": {"item": "pear"}}\n</tool_call>'


def test_one_call_with_text_around() -> None:
    parsed = PARSER.parse(f"Let me see.\n{ONE}\nand wait")
    assert parsed.calls == (ToolCall("call_0", "lookup", {"item": "pear"}),)
    assert parsed.content == "Let me see.\nand wait"
    assert parsed.errors == ()
    assert parsed.reasoning is None


def test_several_calls_are_numbered_in_order() -> None:
    parsed = PARSER.parse(f"{ONE}{ONE}\n{ONE}", id_prefix="t7_")
    assert [call.id for call in parsed.calls] == ["t7_0", "t7_1", "t7_2"]
    assert parsed.content == ""


@pytest.mark.parametrize(
    ("body", "arguments"),
    [
        ('{"name": "f", "arguments": "{\\"a\\": 1}"}', {"a": 1}),
        ('{"name": "f", "arguments": ""}', {}),
        ('{"name": "f", "parameters": {"a": 1}}', {"a": 1}),
        ('{"name": "f", "arguments": null}', {}),
        ('{"name": "f"}', {}),
        ('{"arguments": {"a": [1, {"b": null}]}, "name": "f"}', {"a": [1, {"b": None}]}),
        ('{"name": "f", "arguments": {"a": "two\nlines"}}', {"a": "two\nlines"}),
        ('{"name": "f", "arguments": {"a": "</tool_call></think>"}}', {"a": "</tool_call></think>"}),
        ('{"name": "f", "arguments": {"a": "<tool_call>"}}', {"a": "<tool_call>"}),
        ('{"name": "f", "arguments": {"a": "\\ud83d\\ude00"}}', {"a": "😀"}),
    ],
)  # fmt: skip
def test_what_is_accepted(body: str, arguments: object) -> None:
    (call,) = PARSER.parse(f"<tool_call>{body}</tool_call>").calls
    assert call == ToolCall("call_0", "f", arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ('<tool_call>{"name": "f", "argum', "f", "cut off"),
        ('<tool_call>{"name": "f", "arguments": {}}', "f", "</tool_call> is missing"),
        ("<tool_call>", "", "cut off"),
        ("<tool_call></tool_call>", "", "invalid JSON"),
        ("<tool_call>{'name': 'f'}</tool_call>", "", "invalid JSON"),
        ('<tool_call>{"name": "f", "arguments": {}}}</tool_call>', "f", "text after the JSON object: '}'"),
        ("<tool_call>[1]</tool_call>", "", "expected a JSON object, got list"),
        ('<tool_call>{"arguments": {}}</tool_call>', "", '"name" must be'),
        ('<tool_call>{"name": 3}</tool_call>', "", '"name" must be'),
        ('<tool_call>{"name": "f", "arguments": [1]}</tool_call>', "f", "must be a JSON object, got list"),
        ('<tool_call>{"name": "f", "arguments": "{"}</tool_call>', "f", "not valid JSON"),
        ('<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>', "f", "NaN is not a JSON value"),
        ('<tool_call>{"name": "f", "arguments": {"a": "\\ud800"}}</tool_call>', "f", "\\u escape"),
        ('<tool_call>{"name": "f\\udc00"}</tool_call>', "f?", "\\u escape"),
    ],
)
def test_a_malformed_call_is_kept_with_a_usable_error(text: str, name: str, says: str) -> None:
    parsed = PARSER.parse(text)
    (call,) = parsed.calls
    assert call.name == name
    assert call.error is not None
    assert says in call.error
    assert parsed.errors == (call.error,)
    assert parsed.message().tool_calls == (call,)
    json.dumps(parsed.message().to_openai(), ensure_ascii=False).encode()


def test_good_calls_around_a_malformed_one_still_count() -> None:
    parsed = PARSER.parse(f"{ONE}<tool_call>{{oops</tool_call>{ONE}<tool_call>{{oops {ONE}")
    assert [call.error is None for call in parsed.calls] == [True, False, True, False, True]
    assert [call.id for call in parsed.calls] == [f"call_{i}" for i in range(5)]
    assert len(parsed.errors) == 2


@pytest.mark.parametrize(
    ("text", "reasoning", "content"),
    [
        ("<think>\nhm\n</think>\n\n42", "hm", "42"),
        ("hm\n</think>\n\n42", "hm", "42"),  # the prompt opened it
        ("\n<think>hm", "hm", ""),  # never closed: nothing was said
        ("<think></think>42", "", "42"),
        ("42", None, "42"),
        ("see <think> here", None, "see <think> here"),
        ("<think>a</think>b</think>c", "a", "b</think>c"),
    ],
)
def test_reasoning_is_taken_apart(text: str, reasoning: str | None, content: str) -> None:
    parsed = PARSER.parse(text)
    assert (parsed.reasoning, parsed.content) == (reasoning, content)
    assert parsed.calls == ()


def test_calls_thought_about_are_not_made() -> None:
    assert PARSER.parse(f"<think>maybe {ONE}").calls == ()
    assert PARSER.parse(f"maybe {ONE} or not</think>no").calls == ()
    parsed = PARSER.parse(f"<think>maybe {ONE}</think>{ONE}")
    assert len(parsed.calls) == 1
    assert parsed.reasoning == f"maybe {ONE}"


def test_a_prompt_that_opened_the_thinking() -> None:
    assert OPEN.parse("still at it").reasoning == "still at it"
    assert OPEN.parse("still at it").content == ""
    assert OPEN.parse("hm</think>42").reasoning == "hm"
    assert OPEN.parse("\n</think>\n\n42").reasoning is None
    assert OPEN.parse("\n</think>\n\n42").content == "42"


def test_format_is_what_qwen_templates_write() -> None:
    calls = (ToolCall("a", "lookup", {"item": "pear"}), ToolCall("b", "lookup", {"item": "pear"}))
    assert PARSER.format(Message("assistant", "Hm.", tool_calls=calls)) == f"Hm.\n{ONE}\n{ONE}"
    assert PARSER.format(Message("assistant", "42", reasoning="so")) == "<think>\nso\n</think>\n\n42"
    assert OPEN.format(Message("assistant", "42", reasoning="so")) == "so\n</think>\n\n42"


TAGS = [
    "<tool_call>",
    "</tool_call>",
    "<think>",
    "</think>",
    '{"name": "f", "arguments": {}}',
    '"',
    "{",
    "}",
    "\\",
    "\n",
]
NOISE = st.lists(st.one_of(st.sampled_from(TAGS), st.text(max_size=5)), max_size=14).map("".join)


@given(NOISE, st.booleans())
@example('<tool_call>{"name":' * 3, False)
@example('<tool_call>{"name": "f", "arguments": ' + "[" * 5000, False)
@example('<tool_call>{"name": "f", "arguments": ' + "9" * 5000 + "}</tool_call>", False)
@settings(max_examples=200)
def test_no_text_raises_and_no_call_is_lost(text: str, thinking_open: bool) -> None:
    parsed = HermesParser(thinking_open).parse(text)
    assert [call.id for call in parsed.calls] == [f"call_{i}" for i in range(len(parsed.calls))]
    assert parsed.errors == tuple(call.error for call in parsed.calls if call.error)
    if "think>" not in text and not thinking_open:
        assert bool(parsed.calls) == ("<tool_call>" in text)
    json.dumps([dict(call.arguments) for call in parsed.calls], ensure_ascii=False, allow_nan=False)


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<"), max_size=30).map(str.strip)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
    | st.sampled_from(TAGS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
CALLS = st.lists(
    st.tuples(st.from_regex(r"[a-z_]{1,12}", fullmatch=True), st.dictionaries(st.text(max_size=8), JSON, max_size=3)),
    max_size=3,
)


PIECES = st.sampled_from([*TAGS, " ", "\r", "\xa0", ",", "NaN", "1e999", "null", "[]", "x"])
EDITS = st.lists(st.tuples(st.integers(0, len(ONE)), st.integers(0, 3), PIECES | st.just("")), max_size=3)


@given(EDITS)
@settings(max_examples=200)
def test_the_short_way_reads_as_the_long_one(edits: list[tuple[int, int, str]]) -> None:
    text = ONE
    for at, removed, piece in edits:
        text = text[:at] + piece + text[at + removed :]
    assert PARSER.parse(text) == BaseParser.parse(PARSER, text)


@given(WORDS, st.none() | WORDS, CALLS, st.booleans())
@settings(max_examples=300)
def test_parse_inverts_format(
    content: str, reasoning: str | None, calls: list[tuple[str, dict[str, object]]], thinking_open: bool
) -> None:
    if thinking_open and reasoning == "":
        reasoning = None  # thinking that the prompt opened and the model closed at once: the two are one
    made = tuple(ToolCall(f"call_{i}", name, arguments) for i, (name, arguments) in enumerate(calls))
    message = Message("assistant", content, reasoning=reasoning, tool_calls=made)
    parser = HermesParser(thinking_open)
    assert parser.parse(parser.format(message)).message() == message


@pytest.mark.parametrize(
    "piece", ["<tool_call>", "<tool_call>{", "</think>", '<tool_call>{"name": "', '<tool_call>{"\\"', "<think>", ONE]
)
@pytest.mark.timeout(60)
def test_no_text_hangs(piece: str) -> None:
    assert PARSER.parse(piece * 4000) is not None  # 20 to 400 kB; backtracking over it would take hours


def test_parsing_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from agentgym.rollout.parsers import parse_tool_calls as p; p('x', 'hermes');"
        "print([m for m in ('torch', 'transformers', 'jinja2') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


PIECES = (
    "<tool_call>",
    "</tool_call>",
    '{"name": "f", "arguments": {"a": 1}}',
    "{",
    "}",
    '"',
    "\\u0041",
    "\\",
    "<",
    " \n",
    "think>",
    "NaN",
    "x",
)


@given(st.lists(st.sampled_from(PIECES), max_size=6).map("".join))
@example('<tool_call>{"name": "f", "arguments": {"a": "</tool_call>"}}</tool_call>')
@example('<tool_call>{"name": "f", "arguments": {"a": "\ud800"}}</tool_call>')
@example('<tool_call>{"name": "f", "arguments": "{}"}</tool_call>')
@example('<tool_call>{"name": "f", "arguments": {"a": 1}}{}</tool_call>')
@example("<tool_call>")
@example("<tool_call>\n")
@example("<tool_call>" + "[" * 3000 + "</tool_call>")
def test_what_is_read_quickly_is_read_the_same(text: str) -> None:
    assert HermesParser().parse(text) == BaseParser.parse(HermesParser(), text)
