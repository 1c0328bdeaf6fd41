"""Training at 50 M parameters, a vocabulary of 150k and episodes of 12 turns and 4k tokens: `make test-shapes`.

Everything is made here: a byte-level BPE of 150k entries, a random Qwen3 model, an env whose user keeps talking. One
run of three steps by the command line is killed in its third and resumed. The figures go to
benchmarks/results/shapes.json.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentgym.rollout.record import read_trajectories

pytestmark = pytest.mark.shapes
ENTRIES = 150_000
TURNS, HEARD, SAID = 12, 240, 256
"""Turns an episode, words that the env adds in each, tokens that the model may say (it stops after about 20)."""
STOP = 1
"""The id of <|im_end|>: special tokens come first."""
TIMEOUT = 1800
"""Seconds that one of the two runs may take."""
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


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, its tokenizer and an env."""
    folder = tmp_path_factory.mktemp("shape")
    assert make_tokenizer(folder / "model") == ENTRIES
    assert make_model(folder / "model", ENTRIES) >= 50_000_000
    (folder / "talk.py").write_text(ENV.format(words=list(words(2000)), turns=TURNS, heard=HEARD))
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    """Three steps: killed without warning while the third is under way, then resumed."""
    run = folder / "run"
    settings = {
        "env": f"{folder / 'talk.py'}:Talk",
        "model": folder / "model",
        "steps": 3,
        "run.dir": run,
        "run.live": "off",
        "engine.max_context": 6144,
        "rollout.groups": 2,
        "rollout.group_size": 2,
        "rollout.max_tokens": SAID,
        "rollout.concurrency": 4,
        "trainer.checkpoint_every": 1,
        "eval.tasks": 0,
    }
    first = agentgym("train", *[f"--{name}={value}" for name, value in settings.items()])
    deadline = time.monotonic() + TIMEOUT
    try:
        while not (run / "checkpoints" / "step-00002" / "state.json").exists():
            assert first.poll() is None, "the run ended before its second checkpoint"
            assert time.monotonic() < deadline, "the run took too long"
            time.sleep(0.05)
    finally:
        first.kill()
        first.wait()
    assert len(rows(run / "ledger.jsonl")) == 4
    assert not (run / "summary.json").exists()
    assert agentgym("train", "--resume", str(run)).wait(TIMEOUT) == 0
    return run


def agentgym(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "agentgym", *arguments])


def test_every_group_is_trained_once(run: Path) -> None:
    assert [row["step"] for row in rows(run / "metrics.jsonl")] == [1, 2, 3]
    ledger = rows(run / "ledger.jsonl")
    assert Counter(row["step"] for row in ledger) == {1: 2, 2: 2, 3: 2}
    assert len({row["task"] for row in ledger}) == 6
    assert all(row["outcome"] == "trained" for row in ledger)


def test_figures(folder: Path, run: Path) -> None:
    figures = measure(folder, run)
    report(figures)
    assert figures["turns"] >= 10
    assert figures["tokens_per_episode"] >= 4000
    assert figures["unscored"] == 0
    assert figures["prefill_from_cache"] > 0.5  # turns went on from the cache of the one before
    assert 0 < figures["logprob_gap_max"] <= 1e-4
    assert figures["overhead_frac"] <= 0.10
    assert all(mib > 0 for mib in figures["peak_mem_mib"].values())


def measure(folder: Path, run: Path) -> dict[str, Any]:
    """The figures of the run, over all its steps."""
    from safetensors.torch import load_file

    steps, summary = rows(run / "metrics.jsonl"), json.loads((run / "summary.json").read_text())
    played = [t for i in (1, 2, 3) for t in read_trajectories(run / "trajectories" / f"step-0000{i}.jsonl")]
    tokens = [sum(len(turn.context_ids) + len(turn.completion.ids) for turn in t.turns) for t in played]
    parts = [name for name in steps[0] if name.startswith(("compute/", "overhead/"))]
    spent = {name: sum(row[name] for row in steps) for name in parts}
    cached, prefilled = (sum(row[f"worker/engine/{name}_tokens"] for row in steps) for name in ("cached", "prefill"))
    return {
        "parameters": sum(tensor.numel() for tensor in load_file(folder / "model" / "model.safetensors").values()),
        "vocabulary": ENTRIES,
        "episodes": len(played),
        "turns": sum(len(t.turns) for t in played) / len(played),
        "tokens_per_episode": sum(tokens) / len(tokens),
        "unscored": summary["unscored"],
        "prefill_from_cache": cached / (cached + prefilled),
        "logprob_gap_max": summary["logprob_gap_max"],
        "peak_mem_mib": summary["peak_mem_mib"],
        "overhead_frac": sum(v for name, v in spent.items() if name.startswith("overhead/")) / sum(spent.values()),
        "overhead_frac_by_step": [row["overhead_frac"] for row in steps],
        "cpu_s": spent,
    }


def report(figures: dict[str, Any]) -> None:
    """Print a table, and write the figures down."""
    sys.path.insert(0, str(RESULTS.parents[1]))
    try:
        from report import machine, versions
    finally:
        sys.path.pop(0)
    RESULTS.parent.mkdir(exist_ok=True)
    found = figures | {"versions": versions("torch", "transformers"), "machine": machine()}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    total = sum(figures["cpu_s"].values())
    print(f"\n{'CPU-seconds of three steps':28}{'':>10}{'share':>8}")
    for name, seconds in figures["cpu_s"].items():
        print(f"  {name:26}{seconds:10.3f}{seconds / total:8.2%}")
    for name, value in figures.items():
        if name != "cpu_s":
            print(f"{name:28}{value}")
