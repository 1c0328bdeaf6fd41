"""Small local tokenizers for real chat templates: bytes and the special tokens of the family, nothing downloaded."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_SPECIAL = re.compile(r"<\|?/?[A-Za-z_][\w|]*\|?>|<｜[^｜<>\s]+｜>|\[/?[A-Z_]+\]|</?s>")
_NOT_SPECIAL = {"<tools>", "</tools>", "<tool_response>", "</tool_response>"}


def make_tokenizer(source: str, *, eos: str = "<eos>", specials: tuple[str, ...] = ()) -> Any:
    """Every byte is a token; so is all that looks like one in the template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    found = sorted({*_SPECIAL.findall(source), *specials, "<bos>"} - _NOT_SPECIAL)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=eos, bos_token="<bos>", additional_special_tokens=found
    )
    tokenizer.chat_template = source
    return tokenizer


def trl_template(name: str) -> str:
    """A chat template of the TRL wheel; skips where TRL is not installed."""
    spec = importlib.util.find_spec("trl")
    if spec is None or spec.origin is None:
        pytest.skip("trl is not installed (pip install -e '.[dev]'): its wheel carries the chat templates")
    path = Path(spec.origin).parent / "chat_templates" / f"{name}.jinja"
    if not path.exists():
        pytest.skip(f"this version of trl has no chat template {name}")
    return path.read_text()


@pytest.fixture(scope="session")
def tokenizer_of() -> Callable[[str], Any]:
    """Template name -> tokenizer, made once."""
    made: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in made:
            made[name] = make_tokenizer(_source(name))
        return made[name]

    return get


@pytest.fixture(scope="session")
def byte_tokenizer() -> Callable[[str], Any]:
    """Template source -> a tokenizer with it."""
    return make_tokenizer


def _source(name: str) -> str:
    if name == "qwen3_thinking_2507":  # as Qwen3, but its generation prompt opens the thinking
        head, generation, tail = trl_template("qwen3").rpartition("'<|im_start|>assistant\\n'")
        return f"{head}'<|im_start|>assistant\\n<think>\\n'{tail}" if generation else pytest.skip("qwen3 has changed")
    if name == "mistral_like":
        return MISTRAL_LIKE
    return trl_template(name)


# What is peculiar to Mistral's templates: tools stand before the *last* user message, call ids have nine letters or
# digits and are shown, results follow calls, an answer begins with a blank.
MISTRAL_LIKE = """{{ bos_token }}{% set users = messages | selectattr('role', 'equalto', 'user') | list %}
{%- for m in messages %}
{%- if m.role == 'user' %}
{%- if tools and m == users[-1] %}{{ '[AVAILABLE_TOOLS]' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{% endif %}
{{- '[INST]' + m.content + '[/INST]' }}
{%- elif m.role == 'assistant' and m.tool_calls %}
{{- '[TOOL_CALLS][' }}
{%- for c in m.tool_calls %}
{%- if c.id | length != 9 %}{{ raise_exception('ids of calls must have nine characters') }}{% endif %}
{{- '{"name": "' + c.function.name + '", "arguments": ' + (c.function.arguments | tojson) + ', "id": "' + c.id + '"}' }}
{{- ', ' if not loop.last else ']' + eos_token }}
{%- endfor %}
{%- elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}
{%- elif m.role == 'tool' %}
{%- if m.tool_call_id | length != 9 %}{{ raise_exception('ids of calls must have nine characters') }}{% endif %}
{{- '[TOOL_RESULTS]{"content": ' + (m.content | tojson) + ', "call_id": "' + m.tool_call_id + '"}[/TOOL_RESULTS]' }}
{%- else %}{{ raise_exception('no such role') }}{% endif %}
{%- endfor %}"""
