"""Golden boundaries of real chat templates: what ends a turn, what follows it, what the template does to its past."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from agentgym.errors import ModelError
from agentgym.rollout.renderer import ChatRenderer
from agentgym.rollout.template import PROBE_TOOLS
from agentgym.types import Message, ToolCall

USER, AGAIN = Message("user", "What is 2+3?"), Message("user", "And twice that?")
TOOLS = PROBE_TOOLS
NAMES = [tool["function"]["name"] for tool in TOOLS]


@dataclass(frozen=True)
class Golden:
    """Written by hand from the template: the tokens a model ends a turn with, and what then stands in a history."""

    content: str
    calls: str | None
    past_content: str = ""
    rewrites: str = ""  # "user": when the user speaks again and there was reasoning; "always"
    tools: bool = True
    several: bool = True  # several calls a turn
    reasoning: bool = False


IM = "<|im_end|>"
THINKS = {"rewrites": "user", "reasoning": True}
GOLDEN: dict[str, Golden] = {
    "qwen2_5": Golden(IM, IM),
    "qwen3": Golden(IM, IM, **THINKS),
    "qwen3_training": Golden(IM, IM, reasoning=True),
    "qwen3_thinking_2507": Golden(IM, IM, **THINKS),
    "qwen3_instruct_2507": Golden(IM, IM),
    "qwen3_vl": Golden(IM, IM),
    "qwen3_5_think": Golden(IM, IM, **THINKS),
    "qwen3_5_nothink": Golden(IM, IM, **THINKS),
    "qwen3_6": Golden(IM, IM, **THINKS),
    "qwen3_8": Golden(IM, IM, reasoning=True),
    "llama3_1": Golden("<|eot_id|>", "<|eot_id|>", several=False),
    "llama3_2": Golden("<|eot_id|>", "<|eot_id|>", several=False),
    "mistral_like": Golden("<eos>", "<eos>", rewrites="user"),  # the tools move to the last user message
    "deepseekv3": Golden("<｜end▁of▁sentence｜>", "<｜end▁of▁sentence｜>", rewrites="always", tools=False),
    "glm4moe": Golden("<|user|>", "<|observation|>", **THINKS),
    "gptoss": Golden("<|return|>", "<|call|>", past_content="<|end|>", several=False, **THINKS),
    "gemma4": Golden("<turn|>", "<|tool_response>", **THINKS),
    "gemma4_v3": Golden("<turn|>", "<|tool_response>", **THINKS),
    "gemma4_v5": Golden("<turn|>", "<|tool_response>", **THINKS),
    "gemma4_v2": Golden("<turn|>", "<turn|>"),
    "nemotron_3_nano": Golden(IM, IM, **THINKS),
    "nemotron_3_super": Golden(IM, IM, **THINKS),
    "nemotron_3_ultra": Golden(IM, IM, **THINKS),
    "nemotron_3_5_lightning": Golden(IM, IM, **THINKS),
    "lfm2_v2": Golden(IM, IM),
    "lfm2_2_5": Golden(IM, IM, **THINKS),
    "lfm2_2_5_v2": Golden(IM, IM, **THINKS),
    "muse_glimmer": Golden("<|eot|>", "<|eot|>", reasoning=True),
    # no tools: conversations only
    "llama3": Golden("<|eot_id|>", None, tools=False),
    "gemma": Golden("<end_of_turn>", None, tools=False),
    "gemma3": Golden("<end_of_turn>", None, tools=False),
    "phi3": Golden("<|end|>", None, tools=False),
    "phi3_5": Golden("<|end|>", None, tools=False),
    "cohere": Golden("<|END_OF_TURN_TOKEN|>", None, tools=False),
    "cohere2": Golden("<|END_OF_TURN_TOKEN|>", None, tools=False),
    "qwen2_5_vl": Golden(IM, None, tools=False),
    "smolvlm": Golden("<end_of_utterance>", None, tools=False),
    "llava_next": Golden("</s>", None, tools=False),
    "idefics3": Golden("<end_of_utterance>", None, tools=False),
}
WITH_CALLS = [name for name, golden in GOLDEN.items() if golden.calls]
APPENDS = [name for name, golden in GOLDEN.items() if golden.rewrites != "always"]


def call(turn: int, n: int = 1, reasoning: str | None = None) -> Message:
    calls = tuple(ToolCall(f"call_{turn}{i}", NAMES[i], {"text": f"pear {turn}"}) for i in range(n))
    return Message("assistant", reasoning=reasoning, tool_calls=calls)


def result(turn: int, i: int = 0) -> Message:
    return Message("tool", f"found {turn}", tool_call_id=f"call_{turn}{i}", name=NAMES[i])


def conversations(golden: Golden) -> dict[str, list[Message]]:
    """Canonical conversations that the template should be able to show."""
    why = "because" if golden.reasoning else None
    answer = Message("assistant", "It is 5.", reasoning=why)
    found = {"chat": [USER, Message("assistant", "It is 5."), AGAIN, Message("assistant", "10")]}
    if golden.calls:
        found["tool loop"] = [USER, call(0, 1, why), result(0), call(1, 1, why), result(1), answer]
        found["no thinking"] = [USER, call(0), result(0), call(1), result(1), Message("assistant", "5")]
        found["later user turn"] = [USER, call(0), result(0), Message("assistant", "5"), AGAIN, call(1), result(1)]
        if golden.several:
            found["two calls"] = [USER, call(0, 2, why), result(0), result(0, 1), answer]
    return found


def turns(messages: Sequence[Message]) -> list[tuple[list[Message], list[Message]]]:
    """(history ending in an assistant message, what was added to it), for every turn that has something added."""
    spoken = [i for i, message in enumerate(messages) if message.role == "assistant"]
    ends = [*spoken[1:], len(messages)]
    return [
        (list(messages[: i + 1]), list(messages[i + 1 : j])) for i, j in zip(spoken, ends, strict=True) if i + 1 < j
    ]


class Scene:
    """A template with its renderer; `text` is what the template itself writes."""

    def __init__(self, tokenizer: Any, name: str, **options: Any):
        self.golden = GOLDEN[name]
        self.tokenizer = tokenizer
        self.renderer = ChatRenderer(tokenizer, **options)
        self.tools = TOOLS if self.golden.tools else ()

    def text(self, messages: Sequence[Message], prompt: bool = True) -> str:
        return self.renderer.template.render(messages, self.tools, prompt=prompt)

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def sampled(self, history: Sequence[Message], added: Sequence[Message]) -> tuple[str, str, str] | None:
        """(text before, body, text after its end of turn) as the template writes them; None where it rewrites."""
        before, after = self.text(history[:-1]), self.text([*history, *added])
        if not after.startswith(before):
            return None
        golden = self.golden
        end = golden.calls if history[-1].tool_calls else (golden.past_content or golden.content)
        assert end is not None
        body, found, rest = after[len(before) :].partition(end)
        assert found, f"the template does not end this turn with {end}"
        return before, body, rest

    def end(self, message: Message) -> str:
        end = self.golden.calls if message.tool_calls else self.golden.content
        assert end is not None
        return end


@pytest.fixture(scope="module")
def scene(tokenizer_of: Callable[[str], Any]) -> Callable[..., Scene]:
    made: dict[tuple[Any, ...], Scene] = {}

    def get(name: str, **options: Any) -> Scene:
        key = (name, *sorted(options.items()))
        if key not in made:
            made[key] = Scene(tokenizer_of(name), name, **options)
        return made[key]

    return get


@pytest.mark.parametrize("name", GOLDEN)
def test_stop_tokens_are_the_golden_ones(scene: Callable[..., Scene], name: str) -> None:
    s = scene(name)
    golden = s.golden
    expected = {golden.content, golden.calls or golden.content, "<eos>"}
    assert {s.tokenizer.convert_ids_to_tokens(i) for i in s.renderer.stop_ids} == expected
    assert s.renderer.template.dialect.shows_tools == golden.tools


@pytest.mark.parametrize("name", APPENDS)
def test_concatenation_is_what_the_template_writes(scene: Callable[..., Scene], name: str) -> None:
    """Prompt + sampled tokens + extension decode to the template's own text, closing newline included."""
    s = scene(name)
    checked = 0
    for messages in conversations(s.golden).values():
        for history, added in turns(messages):
            parts = s.sampled(history, added)
            if parts is None:
                assert s.golden.rewrites, f"{name} changed its past unexpectedly"
                continue
            before, body, rest = parts
            completion = s.encode(body + s.end(history[-1]))
            rendered = s.renderer.extend(history, completion, added, s.tools)
            if rendered.rewritten:
                assert s.golden.rewrites == "user"
                assert added[-1].role == "user"
                continue
            # exactly what the template writes after the end of turn: nothing doubled, no newline dropped
            assert s.tokenizer.decode(rendered.ids) == rest
            assert s.encode(before + body) + completion[-1:] + rendered.ids.tolist() == s.encode(
                before + body + s.end(history[-1]) + rest
            )
            checked += 1
    assert checked >= (1 if s.golden.calls is None else 3)


@pytest.mark.parametrize("name", APPENDS)
def test_a_turn_cut_by_length_is_closed(scene: Callable[..., Scene], name: str) -> None:
    s = scene(name, keep_thinking=True)
    history, added = [USER, Message("assistant", "It is")], [AGAIN]
    closings = s.renderer.counters.closings
    cut = s.renderer.extend(history, s.encode("It is"), added, s.tools)
    whole = s.renderer.extend(history, s.encode("It is" + s.golden.content), added, s.tools)
    closer = s.golden.past_content or s.golden.content
    assert s.tokenizer.decode(cut.ids) == closer + s.tokenizer.decode(whole.ids)
    assert s.renderer.counters.closings == closings + 1
    if s.golden.calls:
        cut = s.renderer.extend([USER, call(0)], s.encode("half a ca"), [result(0)], s.tools)
        assert s.tokenizer.decode(cut.ids).startswith(s.golden.calls)


@pytest.mark.parametrize("name", [name for name, golden in GOLDEN.items() if golden.reasoning])
def test_reasoning_is_rewritten_only_as_the_template_does(scene: Callable[..., Scene], name: str) -> None:
    s, keeping = scene(name), scene(name, keep_thinking=True)
    answered = [USER, Message("assistant", "It is 5.", reasoning="because")]
    spoken = s.encode("anything at all" + s.golden.content)
    rendered = s.renderer.extend(answered, spoken, [AGAIN], s.tools)
    assert rendered.rewritten == (s.golden.rewrites == "user")
    if rendered.rewritten:
        assert s.tokenizer.decode(rendered.ids) == s.text([*answered, AGAIN])
    before = keeping.renderer.counters.kept
    kept = keeping.renderer.extend(answered, spoken, [AGAIN], s.tools)
    assert not kept.rewritten
    assert s.tokenizer.decode(kept.ids) in s.text([*answered, AGAIN])
    assert keeping.renderer.counters.kept == before + (s.golden.rewrites == "user")
    # tool turns only append
    thinking = [USER, call(0, 1, "because"), result(0), call(1, 1, "so")]
    ended = s.encode("as the model wrote it" + s.end(call(0)))
    if name != "qwen3_5_nothink":  # its prompt closes the thinking: reasoning there is no canonical history
        assert not s.renderer.extend(thinking, ended, [result(1)], s.tools).rewritten


@pytest.mark.parametrize("name", WITH_CALLS)
def test_how_the_model_wrote_a_call_is_no_rewrite(scene: Callable[..., Scene], name: str) -> None:
    s = scene(name, keep_thinking=True)
    end = s.end(call(0))
    odd = s.renderer.extend([USER, call(0)], s.encode('{"name":"x"} oddly   written' + end), [result(0)], s.tools)
    malformed = Message("assistant", tool_calls=(ToolCall("call_00", "", {}, error="malformed"),))
    bad = s.renderer.extend([USER, malformed], s.encode("{{{" + end), [result(0)], s.tools)
    assert not odd.rewritten
    assert not bad.rewritten
    assert "found 0" in s.tokenizer.decode(bad.ids)


@pytest.mark.parametrize("name", [n for n in WITH_CALLS if not GOLDEN[n].several and n != "gptoss"])
def test_several_results_where_the_template_shows_one_call(scene: Callable[..., Scene], name: str) -> None:
    s = scene(name)
    ids = s.renderer.extend([USER, call(0, 2)], s.encode("x" + s.end(call(0))), [result(0), result(0, 1)], s.tools).ids
    assert s.tokenizer.decode(ids).count("found 0") == 2


@pytest.mark.parametrize("name", [name for name, golden in GOLDEN.items() if not golden.calls])
def test_a_template_without_tools_says_so(scene: Callable[..., Scene], name: str) -> None:
    s = scene(name)
    with pytest.raises(ModelError, match="no place for tools"):
        s.renderer.start([USER], TOOLS)


@pytest.mark.parametrize("name", ["gemma", "gemma3", "phi3", "cohere"])
def test_a_template_without_tool_results_says_so(scene: Callable[..., Scene], name: str) -> None:
    s = scene(name)
    with pytest.raises(ModelError, match="tool results"):
        s.renderer.extend([USER, Message("assistant", "x")], s.encode("x"), [result(0)])


def test_a_template_with_calls_only_hides_the_tools(scene: Callable[..., Scene]) -> None:
    renderer = scene("deepseekv3").renderer
    assert renderer.hides_tools
    assert not scene("qwen3").renderer.hides_tools
    assert renderer.start([USER], TOOLS).ids.tolist() == renderer.start([USER]).ids.tolist()


def test_deepseek_drops_its_opened_thinking_and_is_rewritten(scene: Callable[..., Scene]) -> None:
    s, keeping = scene("deepseekv3"), scene("deepseekv3", keep_thinking=True)
    history, spoken = [USER, call(0)], s.encode("ok</think>x<｜end▁of▁sentence｜>")
    assert s.renderer.opens_thinking
    rendered = s.renderer.extend(history, spoken, [result(0)])
    assert rendered.rewritten
    assert s.tokenizer.decode(rendered.ids) == s.text([*history, result(0)])
    kept = keeping.renderer.extend(history, spoken, [result(0)])
    assert s.text([*history, result(0)]).endswith("<｜end▁of▁sentence｜>" + s.tokenizer.decode(kept.ids))


@pytest.mark.parametrize("stopped", ["<|user|>", "<eos>", "<|observation|>"])
def test_a_role_token_that_is_the_stop_is_not_doubled(scene: Callable[..., Scene], stopped: str) -> None:
    s = scene("glm4moe")
    ids = s.renderer.extend([USER, call(0)], s.encode("x" + stopped), [result(0)], s.tools).ids
    text = stopped + s.tokenizer.decode(ids)
    assert text.count("<|observation|>") == 1
    assert text.index("<|observation|>") < text.index("found 0")
