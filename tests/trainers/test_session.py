"""Whole runs, tiny ones: what they leave, and how they end."""

from __future__ import annotations

import json
import multiprocessing
from collections import Counter
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import agentgym as ag
from agentgym.errors import ConfigError, RunError
from agentgym.rollout.record import read_trajectories
from agentgym.run_folder import RunFolder
from agentgym.trainers import origin, session
from agentgym.trainers.api import sft
from agentgym.trainers.check_run import check_run
from agentgym.trainers.weights import make
from agentgym.trainers.weights.shared import SharedMemorySync
from tests.trainers.tiny_runs import SMALL, Stopper, rows


@pytest.fixture(autouse=True, scope="module")
def few_words() -> Iterator[None]:
    """Each run plays the tasks that its tokenizer is to know the words of; a few will do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(origin, "SEEN_TASKS", 32)
        yield


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The curve takes half the time of such a run; the module's own runs have theirs."""
    monkeypatch.setattr(session, "draw_curve", lambda folder: None)


SEGMENTS: list[str] = []
"""Names of the shared memory that runs have made."""


class Noted(SharedMemorySync):
    def __init__(self, tensors: Any):
        super().__init__(tensors)
        SEGMENTS.append(self._memory.name)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """One run in two processes."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make, "SharedMemorySync", Noted)
        summary = ag.train(SMALL, run__processes=2, run__dir=str(folder), reporter=Stopper())
    return folder, summary


def test_a_run_leaves_no_process_and_no_shared_memory(run: tuple[Path, dict[str, Any]]) -> None:
    assert not [child for child in multiprocessing.active_children() if child.name == "rollout-worker"]
    assert len(SEGMENTS) == 1
    with pytest.raises(FileNotFoundError):
        SharedMemory(SEGMENTS[0])


def test_a_run_leaves_its_folder(run: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = run
    found = {path.name for path in folder.iterdir()}
    assert {"config.toml", "metrics.jsonl", "ledger.jsonl", "trajectories", "checkpoints", "model"} <= found
    assert {"curve.png", "summary.json", "tensorboard"} <= found
    names = {path.name for path in (folder / "trajectories").iterdir()}
    assert names == {"eval-before.jsonl", "eval-after.jsonl", *(f"step-0000{i}.jsonl" for i in (1, 2, 3, 4))}
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"step-00002", "step-00004"}


def test_the_summary_has_what_users_ask_for(run: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = run
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert (summary["env"], summary["seed"], summary["steps"]) == ("agentgym/Store-v0", 0, 4)
    assert summary["trajectories"] == 4 * 2 * 4
    assert summary["unscored"] == 0
    assert 0 < summary["rl_cpu_s"] < summary["cpu_s"]
    assert summary["wall_s"] > 0
    assert {"tokens_per_success", "control", "sft"} <= set(summary)
    assert summary["trajectories_per_cpu_s"] == pytest.approx(32 / summary["rl_cpu_s"], rel=0.05)
    for when in ("before", "after"):
        assert summary[when]["n"] == 6
        assert {"sampled", "greedy", "by_kind"} <= set(summary[when])


def test_the_engines_logprobs_are_the_learners(run: tuple[Path, dict[str, Any]]) -> None:
    assert 0 < run[1]["logprob_gap_max"] < 1e-4


def test_trajectories_hold_enough_to_recompute_the_figures(run: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = run
    steps = [list(read_trajectories(folder / "trajectories" / f"step-0000{i}.jsonl")) for i in (1, 2, 3, 4)]
    metrics = [row for row in rows(folder, "metrics.jsonl") if "reward/mean" in row]
    assert [row["step"] for row in metrics] == [1, 2, 3, 4]
    for row, played in zip(metrics, steps, strict=True):
        assert row["reward/mean"] == pytest.approx(np.mean([t.reward for t in played]))
        assert row["tokens"] == sum(t.sampled_tokens for t in played)
        versions = {int(v) for t in played for turn in t.turns for v in turn.completion.versions}
        assert versions <= {row["step"] - 1, row["step"] - 2}, "at most one version behind"
    assert sum(t.sampled_tokens for played in steps for t in played) == summary["tokens_sampled"]


def test_each_task_occurrence_ends_exactly_once(run: tuple[Path, dict[str, Any]]) -> None:
    ledger = rows(run[0], "ledger.jsonl")
    assert len(ledger) == 8
    assert set(Counter(row["task"] for row in ledger).values()) == {1}
    assert {row["outcome"] for row in ledger} <= {"trained", "filtered", "unscored", "stale"}


def test_the_saved_model_is_an_ordinary_one_and_plays_alike(run: tuple[Path, dict[str, Any]]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = run[0]
    ids = AutoTokenizer.from_pretrained(folder / "model")("What is 3*4+5?", return_tensors="pt").input_ids
    models = [AutoModelForCausalLM.from_pretrained(folder / p).eval() for p in ("model", "checkpoints/step-00004")]
    with torch.no_grad():
        first, second = (model(ids).logits for model in models)
    assert torch.equal(first, second)
    config = RunFolder.open(folder).load_config()
    config.run.processes = 1
    figures = ag.evaluate(str(folder), tasks=6, config=config, reporter=Stopper())
    assert figures["sampled"] == run[1]["after"]["sampled"]
    assert figures["by_kind"] == run[1]["after"]["by_kind"]


CONTROL_ENV = """
import agentgym as ag

TASKS = [ag.Task(str(i), f"say {i}", str(i)) for i in range(8)]


@ag.register("Silent-v0", tasks=TASKS, holdout=0)
def silent(task, answer, episode):
    return float(len(answer) % 2)


@ag.register("Raises-v0", tasks=TASKS, holdout=0)
def raises(task, answer, episode):
    raise LookupError("no grader here")
"""


@pytest.fixture
def envs(tmp_path: Path) -> str:
    (tmp_path / "envs.py").write_text(CONTROL_ENV)
    return str(tmp_path / "envs.py")


def test_an_env_without_demonstrations_is_trained_without_a_warm_start(envs: str, tmp_path: Path) -> None:
    told = Stopper()
    summary = ag.train(SMALL, env__id=f"{envs}:silent", trainer__steps=1, run__dir=str(tmp_path / "run"), reporter=told)
    assert any(note.startswith("no warm start") for note in told.notes)
    assert (summary["steps"], summary["sft"]) == (1, {})
    with pytest.raises(ConfigError, match="nothing to learn from"):
        sft(SMALL, env__id=f"{envs}:silent", run__dir=str(tmp_path / "sft"), reporter=Stopper())


def test_a_reward_that_raises_stops_the_run_and_is_named(envs: str, tmp_path: Path) -> None:
    told = Stopper()
    with pytest.raises(RunError, match="LookupError: no grader here"):
        ag.train(SMALL, env__id=f"{envs}:raises", run__dir=str(tmp_path / "run"), reporter=told)
    assert any("12 of 12 episodes are unscored" in note for note in told.notes)
    assert all(row["outcome"] == "unscored" for row in rows(tmp_path / "run", "ledger.jsonl"))
    before = rows(tmp_path / "run", "metrics.jsonl")[0]
    assert before["sampled"] is None, "unscored is not 0"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"engine.kind": "sglang", "engine.urls": ["http://127.0.0.1:9"]}, r"engine\.urls: SGLang server .*cannot be"),
        ({"engine.kind": "sglang", "engine.python": "/no/python"}, r"engine\.python = '/no/python': cannot be run"),
        ({"learner.device": "cuda"}, "no CUDA device is visible"),
        ({"cluster.kind": "ray", "cluster.address": "127.0.0.1:9"}, "no Ray cluster can be joined there"),
    ],
)
def test_what_is_not_there_is_told_before_anything_is_done(tmp_path: Path, wrong: dict[str, Any], says: str) -> None:
    if "learner.device" in wrong and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    reporter = Stopper()
    with pytest.raises(ConfigError, match=says):
        ag.train(SMALL | wrong, run__dir=str(tmp_path / "run"), reporter=reporter)
    assert reporter.at == "build model", "no demonstration was played"
    assert not (tmp_path / "run").exists(), "the mended command may use the same folder"


def nan(tokens: Any) -> Any:
    return tokens.logprobs * float("nan"), {}


def test_losses_that_are_no_numbers_end_the_run_and_the_rows_are_kept(tmp_path: Path) -> None:
    given = {**SMALL, "sft": {"steps": 0}, "learner": {"minibatches": 1, "agreement": 0.0, "max_skipped": 2}}
    trainer = {"steps": 9, "loss": f"{__file__}:nan"}
    run = tmp_path / "run"
    rewards = tmp_path / "coin.py"
    rewards.write_text("n = [0]\ndef coin(task, answer, episode):\n    n[0] += 1\n    return float(n[0] % 2)\n")
    told = Stopper()
    settings = {**given, "trainer": trainer, "eval": {"tasks": 0}}
    with pytest.raises(RunError, match=r"last 2 optimizer steps were left out.*skipped\.jsonl"):
        ag.train(settings, env__reward=f"{rewards}:coin", run__dir=str(run), reporter=told)
    kept = rows(run, "skipped.jsonl")
    assert {row["step"] for row in kept} == {1, 2}
    played = {t.id for step in (1, 2) for t in read_trajectories(run / f"trajectories/step-{step:05d}.jsonl")}
    assert {row["trajectory"] for row in kept} <= played
    assert [row["skipped_updates"] for row in rows(run, "metrics.jsonl") if "eval" not in row] == [1, 2]


@pytest.mark.parametrize("wrong", [{"loss": "grop"}, {"credit": "gpro"}])
def test_a_loss_or_credit_that_is_not_there_ends_the_run_before_it_begins(
    tmp_path: Path, wrong: dict[str, str]
) -> None:
    with pytest.raises(ConfigError, match="unknown"):
        ag.train({**SMALL, "trainer": wrong}, run__dir=str(tmp_path / "run"), reporter=Stopper())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "asked",
    [
        {"trainer": {"loss": "decoupled"}, "learner": {"minibatches": 2, "kl": 0.1}, "loss": {"kl_in": "reward"}},
        {"trainer": {"loss": "m2po"}, "loss": {"entropy": 0.01, "mask_truncated": True, "aggregate": "constant"}},
    ],
)
def test_runs_with_other_losses(tmp_path: Path, asked: dict[str, Any]) -> None:
    given = {**SMALL, **asked, "trainer": {**SMALL["trainer"], **asked["trainer"], "steps": 2}}
    summary = ag.train(given, run__dir=str(tmp_path / "run"), eval__tasks=0, reporter=Stopper())
    assert summary["steps"] == 2
    assert check_run(tmp_path / "run").problems == []


@pytest.mark.parametrize("control", ["shuffle_rewards", "rejection_sampling"])
def test_controls_run(tmp_path: Path, control: str) -> None:
    summary = ag.train(SMALL, trainer__control=control, run__dir=str(tmp_path / "run"), reporter=Stopper())
    assert (summary["control"], summary["steps"]) == (control, 4)


def test_cpu_seconds_end_a_run(tmp_path: Path) -> None:
    summary = ag.train(
        SMALL, trainer__max_cpu_seconds=0.001, trainer__steps=500, run__dir=str(tmp_path / "run"), reporter=Stopper()
    )
    assert summary["steps"] == 1


def test_sft_on_conversations_lowers_their_loss(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hello yourself"}]}
    (tmp_path / "talk.jsonl").write_text(json.dumps(row) + "\n")
    settings = {"sft.data": str(tmp_path / "talk.jsonl"), "sft.steps": 60, "run.dir": str(tmp_path / "run")}
    summary = sft({**{k: v for k, v in SMALL.items() if k != "sft"}, **settings}, reporter=Stopper())
    assert summary["sft"]["loss"] < 1.0
    assert summary["trajectories"] == 0


def test_two_envs_of_one_id_in_one_run(tmp_path: Path) -> None:
    envs = [
        {"id": "agentgym/Store-v0", "name": "calm", "args": {"busy": 0.0}, "weight": 3.0},
        {"id": "agentgym/Store-v0", "name": "busy", "args": {"busy": 1.0, "max_turns": 3}},
    ]
    settings = {**SMALL, "trainer": {"steps": 2}, "rollout": {**SMALL["rollout"], "groups": 4, "focus": 0.5}}
    run = tmp_path / "run"
    summary = ag.train({**settings, "envs": envs}, run__dir=str(run))
    steps = [row for row in rows(run, "metrics.jsonl") if "reward/mean" in row]
    assert [(row["env/calm/groups"], row["env/busy/groups"]) for row in steps] == [(3, 1), (3, 1)]
    assert steps[0]["env/busy/success"] == 0.0
    assert summary["env"] == "calm,busy"
    assert set(summary["after"]["by_env"]) == {"calm", "busy"}
    files = [path.name for path in (run / "trajectories").glob("*.jsonl")]
    assert {row["env_id"] for name in files for row in rows(run / "trajectories", name)} == {"calm", "busy"}
    with pytest.raises(ConfigError, match="'calm' is there twice: give each a name"):
        ag.train({**settings, "envs": [envs[0], envs[0]]}, run__dir=str(tmp_path / "twice"))
