"""The parser that is found by a real chat template reads what that template writes, and writes what it reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from agentgym.rollout.parsers import get_parser
from agentgym.rollout.renderer import ChatRenderer
from agentgym.rollout.template import PROBE_TOOLS
from agentgym.types import Message, ToolCall

USER = Message("user", "How much?")
LOOK = Message("assistant", "", tool_calls=(ToolCall("call_0", "qzprobe", {"text": "a pear"}),))
TEMPLATES = {
    "qwen2_5": "hermes",
    "qwen3": "hermes",
    "qwen3_5_nothink": "qwen3_coder_xml",
    "qwen3_5_think": "qwen3_coder_xml",
    "nemotron_3_nano": "qwen3_coder_xml",
    "glm4moe": "glm45",
    "llama3_1": "llama3_json",
    "deepseekv3": "deepseek_v3",
    "gptoss": "gpt_oss_harmony",
    "gemma4": "gemma4",
    "lfm2_2_5_v2": "lfm2",
    "mistral_like": "mistral",
}


@pytest.mark.parametrize(("name", "tool_format"), TEMPLATES.items())
def test_the_parser_fits_the_template(tokenizer_of: Callable[[str], Any], name: str, tool_format: str) -> None:
    renderer = ChatRenderer(tokenizer_of(name))
    assert renderer.tool_format == tool_format
    prompt = renderer.template.render([USER], PROBE_TOOLS, prompt=False)
    written = renderer.template.render([USER, LOOK], PROBE_TOOLS, prompt=False)
    assert written.startswith(prompt)
    parsed = get_parser(tool_format).parse(written.removeprefix(prompt), PROBE_TOOLS)
    assert [(call.name, call.arguments, call.error) for call in parsed.calls] == [("qzprobe", {"text": "a pear"}, None)]


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_demonstration_is_read_back(tokenizer_of: Callable[[str], Any], name: str) -> None:
    renderer = ChatRenderer(tokenizer_of(name))
    for message in (LOOK, Message("assistant", "17"), replace(LOOK, reasoning="so")):
        text = renderer.decode(renderer.sampled(message).tolist())
        assert renderer.parser.parse(text, PROBE_TOOLS).message() == message
