"""Training at 50 M parameters, a vocabulary of 150k and episodes of 12 turns and 4k tokens: `make test-shapes`.

Everything is made here: a byte-level BPE of 150k entries, a random Qwen3 model, an env whose user keeps talking. One
run of three steps is interrupted after its second and resumed. The figures go to benchmarks/results/shapes.json.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentgym as ag
from agentgym.report.plain import PlainReporter
from agentgym.rollout.record import read_trajectories

pytestmark = pytest.mark.shapes
ENTRIES = 150_000
TURNS, HEARD, SAID = 12, 330, 256
"""Turns an episode, words that the env adds in each, tokens that the model may say (it stops after about 20)."""
STOP = 1
"""The id of <|im_end|>: special tokens come first."""
PARTS = ("compute/", "overhead/")
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "shapes.json"

TEMPLATE = """\
{%- if tools -%}<|im_start|>system
# Tools{% for tool in tools %}
{{ tool | tojson }}{% endfor %}
Call one as <tool_call>{"name": ..., "arguments": ...}</tool_call><|im_end|>
{% endif -%}
{%- for message in messages -%}
{%- if message.role == 'tool' -%}<|im_start|>user
<tool_response>{{ message.content }}</tool_response><|im_end|>
{% else -%}<|im_start|>{{ message.role }}
{{ message.content or '' }}{% for call in message.tool_calls or [] -%}
<tool_call>{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}</tool_call>
{%- endfor %}<|im_end|>
{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}
"""

ENV = '''
"""A user who keeps talking: the episode goes on after every answer, for {turns} turns."""
import hashlib

import agentgym as ag
from agentgym.protocols import Step

WORDS = {words!r}


@ag.tool
def lookup(word: str) -> int:
    """How often a word was heard."""
    return len(word)


class Talk(ag.ToolEnv):
    tools = (lookup,)
    max_turns = {turns}

    def __init__(self, **kwargs):
        tasks = [ag.Task(str(i), f"Listen, part {{i}}.", str(i)) for i in range(64)]
        super().__init__(tasks=tasks, holdout=0, **kwargs)

    async def astep(self, message):
        episode = self.episode
        if message.tool_calls or episode.turns + 1 >= {turns}:
            return await super().astep(message)
        episode.messages.append(message)
        episode.turns += 1
        picked = episode.rng.integers(len(WORDS), size={heard})
        said = ag.Message("user", " ".join(WORDS[i] for i in picked))
        episode.messages.append(said)
        return Step((said,))

    def reward(self, task, answer, episode):
        return hashlib.md5(answer.encode()).digest()[0] / 255  # differs within a group, whatever a random model says
'''


def words(count: int) -> Iterator[str]:
    rng = random.Random(0)
    syllables = [a + b for a in "bcdfghjklmnprstvz" for b in ("a", "e", "i", "o", "u", "ai", "en", "or")]
    for _ in range(count):
        yield "".join(rng.choices(syllables, k=rng.randint(2, 4)))


def make_tokenizer(folder: Path) -> int:
    """A byte-level BPE, trained here until it has 150k entries; returns how many it has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    specials = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=ENTRIES, special_tokens=specials, initial_alphabet=alphabet, show_progress=False, min_frequency=1
    )
    core.train_from_iterator((" " + word for word in words(400_000)), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    return len(fast)


def make_model(folder: Path, entries: int) -> int:
    """A random Qwen3; returns its number of parameters."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=entries, hidden_size=320, intermediate_size=960, num_hidden_layers=4, num_attention_heads=5,
            num_key_value_heads=1, head_dim=64, max_position_embeddings=8192, tie_word_embeddings=True,
        )
    )  # fmt: skip
    # a random model would hardly ever end its turn: one constant feature makes that token likely, about 1 in 20
    table = model.get_input_embeddings().weight.data
    table[:, 0] = 1.0
    table[STOP, 0] = 2.75
    model.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


class StopAfter(PlainReporter):
    """Ctrl-C once `step` steps are trained."""

    def __init__(self, step: int):
        super().__init__()
        self.step = step

    def metrics(self, row: Any, step: int) -> None:
        super().metrics(row, step)
        if step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_fifty_million_parameters_and_long_episodes(tmp_path: Path) -> None:
    model = tmp_path / "model"
    entries = make_tokenizer(model)
    parameters = make_model(model, entries)
    assert entries == ENTRIES
    assert parameters >= 50_000_000
    (tmp_path / "talk.py").write_text(ENV.format(words=list(words(2000)), turns=TURNS, heard=HEARD))
    run = tmp_path / "run"
    settings = {
        "run": {"dir": str(run), "live": "off"},
        "env": {"id": f"{tmp_path / 'talk.py'}:Talk"},
        "model": {"path": str(model)},
        "engine": {"slots": 4, "max_context": 6144},
        "rollout": {"groups": 2, "group_size": 2, "max_tokens": SAID, "concurrency": 4},
        "trainer": {"steps": 3, "checkpoint_every": 1},
        "eval": {"tasks": 0},
    }
    with pytest.raises(KeyboardInterrupt):
        ag.train(settings, reporter=StopAfter(2))
    assert len(rows(run / "ledger.jsonl")) == 4
    summary = ag.train(resume=str(run), reporter=PlainReporter())

    steps = [row for row in rows(run / "metrics.jsonl") if "reward/mean" in row]
    assert [row["step"] for row in steps] == [1, 2, 3]
    ledger = Counter(row["task"] for row in rows(run / "ledger.jsonl"))
    assert len(ledger) == 6
    assert set(ledger.values()) == {1}
    played = [t for i in (1, 2, 3) for t in read_trajectories(run / "trajectories" / f"step-0000{i}.jsonl")]
    turns = [len(t.turns) for t in played]
    tokens = [sum(len(turn.context_ids) + len(turn.completion.ids) for turn in t.turns) for t in played]
    figures = {
        "parameters": parameters,
        "vocabulary": entries,
        "turns": sum(turns) / len(turns),
        "tokens_per_episode": sum(tokens) / len(tokens),
        "logprob_gap_max": summary["logprob_gap_max"],
        "peak_mem_mib": summary["peak_mem_mib"],
        "overhead_frac": overhead(steps),
        "cpu_s": {
            name: sum(row[name] for row in steps) for name in steps[0] if name.startswith(("compute/", "overhead/"))
        },
    }
    report(figures)
    assert figures["turns"] >= 10
    assert figures["tokens_per_episode"] >= 4000
    assert summary["unscored"] == 0
    assert 0 < summary["logprob_gap_max"] <= 1e-4
    assert figures["overhead_frac"] <= 0.10


def overhead(steps: list[dict[str, Any]]) -> float:
    """Share of the CPU-seconds of all steps that is no model compute."""
    spent = sum(v for row in steps for k, v in row.items() if k.startswith(PARTS))
    return sum(v for row in steps for k, v in row.items() if k.startswith("overhead/")) / spent


def report(figures: dict[str, Any]) -> None:
    sys.path.insert(0, str(RESULTS.parents[1]))
    try:
        from report import machine, versions
    finally:
        sys.path.pop(0)
    RESULTS.parent.mkdir(exist_ok=True)
    found = figures | {"versions": versions("torch", "transformers"), "machine": machine()}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print("\n" + json.dumps(figures, indent=1))
