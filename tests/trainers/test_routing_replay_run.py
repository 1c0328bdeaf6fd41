"""`agentgym train` on a tiny mixture of experts with routing replay: the gap is told with and without."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

import agentgym as ag
from agentgym.engines import expert_cache
from agentgym.engines.local import LocalEngine
from agentgym.engines.sglang import commands, make
from agentgym.errors import ConfigError
from agentgym.trainers.check_run import check_run
from agentgym.trainers.tiny_model import build_tokenizer
from tests.trainers.rows import SIZES, tiny
from tests.trainers.tiny_runs import quick_runs

FAKE = Path(__file__).parents[1] / "engines" / "sglang" / "fake_server.py"
WORDS = """
import agentgym as ag

@ag.tool
def spell(word: str) -> str:
    "Spell a word."
    return " ".join(word)

@ag.register("Words-v0", tools=[spell], tasks=[ag.Task(f"t{i}", f"Say {i} words.", i) for i in range(24)], holdout=6)
def words(task, answer, episode):
    return len(set(answer)) / max(1, len(answer))
"""
"""Any model earns something here, and not every time the same."""
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
SMALL: dict[str, Any] = {
    "run": {"live": "off", "processes": 1},
    "engine": {"slots": 16, "max_context": 128},
    "sft": {"steps": 0},
    "trainer": {"steps": 3, "checkpoint_every": 2},
    "rollout": {"groups": 3, "group_size": 4, "max_tokens": 24, "concurrency": 16},
    "learner": {"routing_replay": True, "lr": 1e-3},
    "eval": {"tasks": 0},
}
pytestmark = pytest.mark.xdist_group("runs of mixtures")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder with a mixture of experts, its tokenizer, and an environment."""
    (tmp_path / "words.py").write_text(WORDS)
    save(tmp_path, mixture)
    with quick_runs():
        yield tmp_path


def mixture(vocabulary: int) -> Any:
    torch.manual_seed(0)
    sizes = {**SIZES, "vocab_size": vocabulary, "max_position_embeddings": 512, "initializer_range": 0.15}
    sizes["tie_word_embeddings"] = False  # SGLang's Qwen3-MoE has a head of its own, as the real ones do
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**sizes, **EXPERTS, pad_token_id=0, eos_token_id=1))


def save(folder: Path, build: Any) -> None:
    tokenizer = build_tokenizer(["Say 0 1 2 3 words ."])
    build(len(tokenizer)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")


def train(place: Path, **changed: Any) -> list[dict[str, Any]]:
    """The steps' metrics."""
    config: dict[str, Any] = {name: {**section, **changed.pop(name, {})} for name, section in SMALL.items()} | changed
    config["run"]["dir"] = str(place / "run")
    config["model"] = {"path": str(place / "model"), **config.get("model", {})}
    ag.train(config, env__id=f"{place}/words.py:words")
    rows = [json.loads(line) for line in (place / "run" / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "logprob_gap" in row]


def check(learned: list[dict[str, Any]]) -> None:
    """The engine routes as the learner does: no gap, with and without; and nearly all tokens were told of."""
    assert [row["step"] for row in learned] == [1, 2, 3]
    for row in learned:
        assert row["routing_replay/told"] == 1.0
        assert row["routing_replay/gap_max"] < 1e-4
        assert row["routing_replay/own_gap_max"] < 1e-4
        assert row["logprob_gap"] is None or row["logprob_gap"] < 1e-4


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_on_the_local_engine(place: Path, processes: int) -> None:
    check(train(place, run={"processes": processes}))
    assert check_run(place / "run").problems == []
    stored = (place / "run" / "trajectories" / "step-00001.jsonl").read_text()
    assert '"experts"' not in stored, "what is stored is as without: they are for the learner alone"


def test_a_run_whose_engine_routes_otherwise(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its routers are a little off at every version, as with other kernels: replay closes most of that."""
    choose = expert_cache.Note.choose

    def off(self: Any, layer: int, scores: torch.Tensor, own: Any) -> Any:
        generator = torch.Generator().manual_seed(layer)
        noise = 1 + 0.3 * torch.randn(scores.shape[-1], generator=generator)
        other = (scores * noise).topk(own.indices.shape[-1]).indices
        return choose(self, layer, scores, torch.return_types.topk((scores.gather(-1, other), other)))

    # what is tried when the engine is made is tried as it is
    real = LocalEngine.__init__

    def made(self: Any, *args: Any, **options: Any) -> None:
        real(self, *args, **options)
        monkeypatch.setattr(expert_cache.Note, "choose", off)

    monkeypatch.setattr(LocalEngine, "__init__", made)
    learned = train(place)
    assert max(row["routing_replay/own_gap_max"] for row in learned) > 1e-2
    exact = [row for row in learned if row["logprob_gap"] is not None]  # else weights of another version are compared
    assert exact
    for row in exact:
        assert row["routing_replay/gap_max"] < 1e-4, "the very same experts, and the same weights of them"
        assert row["logprob_gap"] < 1e-4


def test_a_dense_model_is_refused(place: Path) -> None:
    save(place, lambda vocabulary: tiny(vocab_size=vocabulary, max_position_embeddings=512))
    with pytest.raises(ConfigError, match=r"learner.routing_replay: Qwen3ForCausalLM has no experts; set it to false"):
        train(place)


@pytest.mark.slow
def test_a_run_on_two_ranks(place: Path) -> None:
    check(train(place, learner={"ranks": 2}))


@pytest.mark.slow
def test_a_run_on_the_fake_server(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "LAUNCHER", str(FAKE))
    monkeypatch.setattr(make, "find_python", lambda given: sys.executable)
    check(train(place, engine={"kind": "sglang"}))


@pytest.mark.sglang
@pytest.mark.timeout(900)
def test_a_run_on_a_real_server(place: Path) -> None:
    check(train(place, engine={"kind": "sglang"}))
    assert check_run(place / "run").problems == []
    assert "'enable_return_routed_experts': True" in (place / "run" / "servers" / "server-0.log").read_text()
