"""A tiny model and tokenizer built locally, so that a first run needs no download.

Qwen3's architecture at laptop size, and a tokenizer whose words are those of the environment. Words stay whole and
digits stay single: merges that split a key differently in different places made such a model garble that key. Unknown
text falls back to bytes, so encoding is exactly reversible.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agentgym.config import ModelConfig
from agentgym.types import Message

SPECIALS = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
# Hermes calls are mostly scaffold: one token each for its fixed parts
SCAFFOLD = ('<tool_call>\n{"name": "', '", "arguments": {"', '": "', '"}}\n</tool_call>', "<tool_call>", "</tool_call>")
WORD = r"[^\W\d_]+(?:_[^\W\d_]+)*"
SPLIT = rf"{WORD}|\d|\s|[^\w\s]|_"

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
<|assistant|>{{ message.content or '' }}
{%- for call in message.tool_calls or [] -%}
{%- if (loop.first and message.content) or not loop.first -%}{{ '\\n' }}{%- endif -%}
{%- set function = call.function or call -%}
{{ '<tool_call>\\n{"name": "' + function.name + '", "arguments": ' }}
{{- (function.arguments | tojson) + '}\\n</tool_call>' }}
{%- endfor -%}
<|end|>
{%- else -%}
<|{{ message.role }}|>{{ message.content }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}
"""


def build_tokenizer(texts: Iterable[str], *, max_words: int = 4096) -> Any:
    """A transformers tokenizer whose vocabulary is 256 bytes, the scaffold, and the words of `texts`."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(re.findall(WORD, text))
    words = [byte_level.pre_tokenize_str(word)[0][0] for word, _ in sorted(counts.items(), key=lambda x: (-x[1], x[0]))]
    symbols = [*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet()), *words[:max_words]]
    vocabulary = {symbol: i for i, symbol in enumerate(dict.fromkeys(symbols))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLIT), "isolated"), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIALS])
    tokenizer.add_tokens([AddedToken(s, special=False, normalized=False) for s in SCAFFOLD])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_model(
    vocabulary: int, config: ModelConfig, *, max_context: int, seed: int, pad: int = 0, eos: int = 1
) -> Any:
    """A randomly initialised Qwen3 causal LM of `config`'s size, fp32."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=vocabulary,
            hidden_size=config.width,
            intermediate_size=2 * config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,  # with shared ones, copying takes far longer to learn
            head_dim=config.width // config.heads,
            max_position_embeddings=max(512, max_context),
            tie_word_embeddings=True,
            pad_token_id=pad,
            eos_token_id=eos,
            bos_token_id=None,
        )
    )


def conversation_texts(conversations: Iterable[Sequence[Message]], tools: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """What a tokenizer should know the words of: everything said, and the tools' schemas."""
    for messages in conversations:
        for message in messages:
            yield message.text
            for call in message.tool_calls:
                yield call.name
                yield json.dumps(dict(call.arguments))
    for tool in tools:
        yield json.dumps(tool)
