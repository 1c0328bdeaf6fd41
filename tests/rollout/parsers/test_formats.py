"""Every format: the recorded cases, what is malformed, and which format a chat template means."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from agentgym.rollout.parsers import detect_format, get_parser, known_formats, parse_tool_calls
from agentgym.rollout.parsers.base import BaseParser
from agentgym.rollout.parsers.hermes import HermesParser
from agentgym.rollout.parsers.scan import Scan
from agentgym.types import ToolCall

DATA = Path(os.environ.get("AGENTGYM_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))
NAMED = {
    *("hermes", "qwen3_coder_xml", "qwen3_xml", "llama3_json", "llama_pythonic", "pythonic", "llama4_pythonic"),
    *("olmo3_pythonic", "mistral", "deepseek_v3", "deepseek_v3.1", "glm45", "glm47", "kimi_k2", "gpt_oss_harmony"),
}


def tool(name: str, **parameters: Any) -> dict[str, Any]:
    rows = {key: row if isinstance(row, Mapping) else {"type": row} for key, row in parameters.items()}
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": rows}}}


def test_recorded_cases() -> None:
    path = DATA / "open" / "function_call_cases.jsonl"
    if not path.exists():
        pytest.skip(
            f"no recorded cases at {path} (set AGENTGYM_DATA to the folder with open/function_call_cases.jsonl)"
        )
    tried, right = Counter[str](), Counter[str]()
    for row in map(json.loads, path.read_text().splitlines()):
        name = row["format"].removesuffix("_body").removesuffix("_v11_args")
        if name not in known_formats():
            continue
        tools = [tool(function, **types) for function, types in (row.get("param_types") or {}).items()]
        parsed = parse_tool_calls(row["raw"], name, tools)
        fits = _fits(parsed.calls, row["expected_calls"])
        tried[name] += 1
        right[name] += fits
        if not fits:
            print(f"miss: {row['format']} {row['case']}: {row['raw']!r} -> {parsed.calls}")
    named = [name for name in tried if name in NAMED]
    assert set(named) == NAMED
    assert sum(right[name] for name in named) >= 0.98 * sum(tried[name] for name in named)
    assert right.total() >= 0.98 * tried.total()


def _fits(calls: tuple[ToolCall, ...], expected: list[dict[str, Any]] | None) -> bool:
    """`expected` None: it must only not raise; arguments None: only the name counts."""
    made = [call for call in calls if call.error is None]
    if expected is None:
        return True
    return len(made) == len(expected) and all(
        call.name == row["name"] and row["arguments"] in (None, dict(call.arguments))
        for call, row in zip(made, expected, strict=True)
    )


MALFORMED = [
    ("qwen3_coder_xml", "<tool_call>\n<function=f>\n<parameter=a>\nx", "f", "cut off"),
    ("qwen3_coder_xml", "<tool_call>\n<function=f>\n", "f", "cut off"),
    ("qwen3_coder_xml", "<tool_call>hm</tool_call>", "", "<function=NAME is missing"),
    ("qwen3_coder_xml", "<tool_call><function=></function></tool_call>", "", "name of the tool"),
    ("qwen3_coder_xml", "<tool_call><function=f>x=1</function></tool_call>", "f", "'x=1' is no parameter"),
    ("llama3_json", '{"name": "f", "parameters": {"a": ', "f", "cut off"),
    ("llama3_json", '{"name": "f", "parameters": {"a": NaN}}', "f", "NaN"),
    ("llama3_json", '{"name": "f", "parameters": [1]}', "f", "must be a JSON object"),
    ("llama3_json", "<|python_tag|>print(1)", "", "invalid JSON"),
    ("llama4_pythonic", "<|python_start|>[f(1)]<|python_end|>", "f", "by keyword"),
    ("llama4_pythonic", "<|python_start|>[f(a=2+2)]<|python_end|>", "f", "literals"),
    ("llama4_pythonic", "<|python_start|>[f(a='x", "f", "cut off"),
    ("olmo3_pythonic", "<function_calls>oh</function_calls>", "", "expected NAME(...)"),
    ("mistral", '[TOOL_CALLS][{"name": "f", "arg', "f", "cut off"),
    ("mistral", "[TOOL_CALLS]f[ARGS]", "f", "cut off"),
    ("mistral", "[TOOL_CALLS]f[ARGS]{oops}", "f", "invalid JSON"),
    ("mistral", "[TOOL_CALLS]", "", "name of the tool"),
    ("mistral", "[TOOL_CALLS]f", "f", "arguments are missing"),
    ("deepseek_v3", "<｜tool▁calls▁begin｜>", "", "is missing"),
    ("deepseek_v3", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{", "f", "cut off"),
    ("deepseek_v3", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n{oh}<｜tool▁call▁end｜>", "f", "invalid JSON"),
    ("deepseek_v3.1", "<｜tool▁call▁begin｜>f<｜tool▁call▁end｜>", "f", "<｜tool▁sep｜> is missing"),
    ("deepseek_v3.1", "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{}}<｜tool▁call▁end｜>", "f", "text after the JSON"),
    ("kimi_k2", "<|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>[]<|tool_call_end|>", "f", "JSON object"),
    ("kimi_k2", "<|tool_call_begin|>functions.f<|tool_call_argument_begin|>{}<|tool_call_end|>", "f", "NAME:NUMBER"),
    ("kimi_k2", "<|tool_call_begin|><|tool_call_argument_begin|>{}<|tool_call_end|>", "", "is no name"),
    ("glm45", "<tool_call>f\n<arg_key>a</arg_key>\n</tool_call>", "f", "must follow each other"),
    ("glm45", "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>x", "f", "cut off"),
    ("glm47", '<tool_call>{"name": "f"}</tool_call>', "", "name of the tool"),
    ("glm47", "<tool_call>", "", "name of the tool"),
    ("gpt_oss_harmony", "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{", "f", "cut off"),
    ("gpt_oss_harmony", "<|channel|>commentary to=functions.f <|constrain|>json", "f", "cut off"),
    ("gpt_oss_harmony", "<|channel|>commentary to=functions.f<|message|>{} {}<|call|>", "f", "text after"),
    ("fenced", '```tool_call\n{"name": "f", "arguments": {\n```', "f", "invalid JSON"),
    ("fenced", '```json\n{"name": "f", "arguments": {"a": tru}}\n```', "f", "invalid JSON"),
    ("native", '{"tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}', "f", "not valid JSON"),
    ("native", '{"role": "assistant", "tool_calls": [', "", "not valid JSON"),
    ("native", '{"tool_calls": "f"}', "", "must be a list"),
    ("granite", '<|tool_call|>[{"name": "f"', "f", "cut off"),
    ("jamba", '<tool_calls>[{"name": 1}]</tool_calls>', "", '"name" must be'),
    ("gemma4", "<|tool_call>call:f{a:<|\"|>x", "f", "cut off"),
    ("gemma4", "<|tool_call>call:f{a 1}<tool_call|>", "f", "expected key:value"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "called", "says"), MALFORMED)
def test_a_malformed_call_is_an_observation(name: str, text: str, called: str, says: str) -> None:
    parsed = parse_tool_calls(text, name)
    (call,) = parsed.calls
    assert call.name == called
    assert call.error is not None
    assert says in call.error
    assert "; write " in call.error
    assert parsed.errors == (call.error,)


def test_a_list_that_nobody_marked() -> None:
    text = "[look(item='pear'"
    assert parse_tool_calls(text, "pythonic").content == text
    (call,) = parse_tool_calls(text, "pythonic", [tool("look")]).calls
    assert call.name == "look"
    assert call.error is not None
    prose = "See [the note (1)] and [f(x) for x in y]."
    assert parse_tool_calls(prose, "pythonic").content == prose
    (call,) = parse_tool_calls("[wait (what\n[get-it(a='x\ny', **{'b c': true})]", "pythonic").calls
    assert call == ToolCall("call_0", "get-it", {"a": "x\ny", "b c": True})


def test_values_are_typed_by_the_schema() -> None:
    kinds = {
        "text": "string",
        "whole": "integer",
        "handmade": "int",
        "real": "number",
        "on": "boolean",
        "rows": "array",
        "maybe": {"type": ["string", "null"]},
        "either": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "choice": {"enum": ["1", "2"]},
    }
    values = {
        "text": ("42", "42"),
        "whole": ("42", 42),
        "handmade": ("7", 7),
        "real": ("1e3", 1000.0),
        "on": ("True", True),
        "rows": ("['a', (1, 2)]", ["a", [1, 2]]),
        "maybe": ("null", None),
        "either": ("7", 7),
        "choice": ("1", "1"),
        "unknown": ("[1]", [1]),
        "other": ('"quoted"', '"quoted"'),
    }
    body = "".join(f"<parameter={key}>\n{text}\n</parameter>\n" for key, (text, _) in values.items())
    (call,) = parse_tool_calls(f"<function=f>\n{body}</function>", "qwen3_coder_xml", [tool("f", **kinds)]).calls
    assert call.arguments == {key: value for key, (_, value) in values.items()}
    (call,) = parse_tool_calls("<function=f><parameter=whole>many</parameter></function>", "qwen3_xml", [{}]).calls
    assert call.arguments == {"whole": "many"}


def test_a_closing_tag_may_be_missing_where_the_next_begins() -> None:
    text = "<tool_call>\n<function=f>\n<parameter=a>\nx\n<parameter=b>\ny\n</function>\n</tool_call>"
    (call,) = parse_tool_calls(text, "qwen3_coder_xml").calls
    assert call == ToolCall("call_0", "f", {"a": "x", "b": "y"})


def test_whole_calls_after_a_broken_one_count() -> None:
    whole = '{"name": "g", "parameters": {}}'
    for start in ("", "<|python_tag|>"):
        broken, good = parse_tool_calls(f'{start}{{"name": "f", "parameters": {{"a": 1}}{whole}', "llama3_json").calls
        assert (broken.name, good) == ("f", ToolCall("call_1", "g"))
        assert broken.error is not None
    (call,) = parse_tool_calls('{"type": "function", "function": "f", "parameters": {"a": 1}}', "llama3_json").calls
    assert call == ToolCall("call_0", "f", {"a": 1})


def test_ids_of_kimi_and_openai_are_kept() -> None:
    one = "<|tool_call_begin|>functions.f:7<|tool_call_argument_begin|>{}<|tool_call_end|>"
    text = f"<|tool_calls_section_begin|>{one}{one}<|tool_calls_section_end|>"
    assert [call.id for call in parse_tool_calls(text, "kimi_k2").calls] == ["functions.f:7", "call_1"]
    row = {"content": None, "tool_calls": [{"id": "x1", "type": "function", "function": {"name": "f"}}]}
    assert parse_tool_calls(json.dumps(row), "native").calls == (ToolCall("x1", "f"),)


@pytest.mark.parametrize(
    ("name", "text", "reasoning"),
    [
        ("glm45", "<think>hm</think>\n<tool_call>f</tool_call>", "hm"),
        ("mistral", "[THINK]hm[/THINK][TOOL_CALLS]f{}", "hm"),
        ("seed_oss", "<seed:think>hm</seed:think><seed:tool_call><function=f></function></seed:tool_call>", "hm"),
        ("gemma4", "<|channel>thought\nhm<channel|><|tool_call>call:f{}<tool_call|>", "hm"),
        ("gpt_oss_harmony", "<|channel|>analysis<|message|>hm<|end|><|start|>assistant to=f<|message|>{}", "hm"),
        ("native", '{"reasoning_content": "hm", "tool_calls": [{"name": "f"}]}', "hm"),
    ],
)
def test_reasoning_is_taken_apart(name: str, text: str, reasoning: str) -> None:
    parsed = parse_tool_calls(text, name)
    assert (parsed.reasoning, parsed.content) == (reasoning, "")
    assert parsed.calls == (ToolCall("call_0", "f"),)


def test_calls_thought_about_are_not_made() -> None:
    for text in ("<think>maybe [f()]</think>no", "maybe [f()]</think>no"):
        parsed = parse_tool_calls(text, "pythonic")
        assert (parsed.calls, parsed.reasoning, parsed.content) == ((), "maybe [f()]", "no")
    parsed = parse_tool_calls("<|channel|>analysis<|message|><tool_call><|end|>", "gpt_oss_harmony")
    assert (parsed.calls, parsed.reasoning) == ((), "<tool_call>")


def test_text_between_harmony_calls_was_made_up_too() -> None:
    call = "<|channel|>commentary to=functions.{} <|constrain|>json<|message|>{{}}<|call|>"
    parsed = parse_tool_calls(f"{call.format('a')}it is 3{call.format('b')}", "gpt_oss_harmony")
    assert ([c.name for c in parsed.calls], parsed.content) == (["a", "b"], "")
    parsed = parse_tool_calls(f"I look it up.{call.format('a')}", "gpt_oss_harmony")
    assert ([c.name for c in parsed.calls], parsed.content) == (["a"], "I look it up."), "before a call it is content"


class Stuck(BaseParser):
    """A format whose calls are read as nothing, from where they begin to where they begin."""

    how = "write x"  # type: ignore[assignment]

    def find(self, scan: Scan, at: int) -> int:
        return scan.find("x", at)

    def read(self, scan: Scan, start: int) -> int:
        return start

    def write(self, calls: Sequence[ToolCall]) -> str:
        return "x"


@pytest.mark.timeout(10)
def test_a_format_that_reads_nothing_holds_nobody_up() -> None:
    seen: list[int] = []

    class Counted(Stuck):
        def read(self, scan: Scan, start: int) -> int:
            seen.append(start)
            return start

    assert Counted().parse("axbx").content == "axbx"
    assert seen == [1, 3], "each place is looked at once"


def test_what_is_said_after_a_harmony_call_was_made_up() -> None:
    call = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>"
    parsed = parse_tool_calls(f"{call}<|start|>assistant<|channel|>final<|message|>it is 3", "gpt_oss_harmony")
    assert (parsed.calls, parsed.content) == ((ToolCall("call_0", "f"),), "")


def test_fenced_code_that_is_no_call_is_content() -> None:
    text = 'Look:\n```python\nf()\n```\n```json\n{"a": 1}\n```'
    parsed = parse_tool_calls(text, "fenced")
    assert (parsed.calls, parsed.content) == ((), text)


def test_formats_by_name() -> None:
    assert {*NAMED, "fenced", "native"} <= set(known_formats())
    assert isinstance(get_parser("hermes"), HermesParser)
    assert get_parser("glm45") is get_parser("glm45")
    with pytest.raises(ValueError, match=r"unknown tool format 'herms'; did you mean 'hermes'\? \(known: .*kimi_k2"):
        get_parser("herms")


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{{ '<tool_call>' }}", "hermes"),
        ("no calls at all", "hermes"),
        ("<tool_call>\n<function=f>\n<parameter=a>", "qwen3_coder_xml"),
        ("<tool_call>f\n<arg_key>k</arg_key>\n<arg_value>", "glm45"),
        ("<tool_call>f<arg_key>k</arg_key><arg_value>v</arg_value>", "glm47"),
        ("<|channel|>commentary <|call|>", "gpt_oss_harmony"),
        ("'[TOOL_CALLS] ' + calls", "mistral"),
        ("'[TOOL_CALLS]' + name + '[ARGS]'", "mistral_v11"),
        ("<｜tool▁calls▁begin｜>function<｜tool▁sep｜>f\n```json", "deepseek_v3"),
        ("<｜tool▁calls▁begin｜>f<｜tool▁sep｜>", "deepseek_v3.1"),
        ("<|tool_calls_section_begin|>", "kimi_k2"),
        ("<|start_header_id|>{\"name\": f, \"parameters\": {}}", "llama3_json"),
        ("<|python_start|>", "llama4_pythonic"),
        ("<function_calls>", "olmo3_pythonic"),
        ("<|tool_call>call:", "gemma4"),
    ],
)  # fmt: skip
def test_formats_by_template(template: str, name: str) -> None:
    assert detect_format(template) == name
    assert name in known_formats()
