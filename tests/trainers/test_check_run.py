"""A run's folder is held against itself: what a healthy one says, and that each kind of damage is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import agentgym as ag
from agentgym.cli import main
from agentgym.trainers import origin, session
from agentgym.trainers.check_run import check_run

ENVS = """
import agentgym as ag

@ag.register("Coin-v0", tools=[], tasks=[ag.Task(f"t{i}", f"Say {i}.", i) for i in range(30)], holdout=0)
def coin(task, answer, episode):
    if task.answer == 7:
        raise RuntimeError("the grader is down")
    return float(episode.rng.integers(2))
"""
CONFIG: dict[str, Any] = {
    "run": {"live": "off", "processes": 1},
    "model": {"layers": 1, "width": 32, "heads": 2},
    "trainer": {"steps": 9, "checkpoint_every": 3},
    "rollout": {"groups": 3, "group_size": 2, "max_tokens": 4, "dynamic_sampling": 1.0, "failure_budget": 1.0},
    "eval": {"tasks": 0},
}
Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("checked")
    (home / "envs.py").write_text(ENVS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(origin, "SEEN_TASKS", 32)
        patch.setattr(session, "draw_curve", lambda folder: None)
        ag.train(CONFIG, env__id=f"{home}/envs.py:coin", run__dir=str(home / "run"))
    return home / "run"


def test_a_healthy_run(healthy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = check_run(healthy)
    assert found.problems == []
    ended = found.figures["groups"]
    assert (found.figures["steps"], found.figures["finished"]) == (9, True)
    assert ended["trained"] > 5
    assert ended["filtered"] > 2
    assert sum(ended.values()) > 27, "some were replaced"
    assert found.figures["staleness_max"] <= found.figures["max_staleness"] == 1
    with pytest.raises(SystemExit) as end:
        main(["check-run", str(healthy)])
    assert end.value.code == 0
    assert "nothing is off" in capsys.readouterr().out


def lines(name: str, change: Callable[[list[Any]], Any]) -> Damage:
    def damage(run: Path) -> None:
        rows = [json.loads(line) for line in (run / name).read_text().splitlines()]
        changed = change(rows)
        rows = rows if changed is None else changed
        (run / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    return damage


def tokens(change: Callable[[dict[str, Any]], Any]) -> Damage:
    def last(rows: list[Any]) -> None:
        change(rows[0]["turns"][0])

    return lines("trajectories/step-00009.jsonl", last)


def cut(pattern: str) -> Damage:
    def damage(run: Path) -> None:
        (path,) = run.glob(pattern)
        path.write_bytes(path.read_bytes()[:100])

    return damage


DAMAGES: list[tuple[str, Damage, str]] = [
    ("a task is skipped", lines("ledger.jsonl", lambda rows: rows[1:]), "are not those of the ledger's step 1"),
    ("ends twice", lines("ledger.jsonl", lambda rows: rows + rows[-1:]), "has ended in line"),
    ("outcome", lines("ledger.jsonl", lambda rows: rows[0].update(outcome="stale")), "is stale, its trajectories say"),
    ("no outcome", lines("ledger.jsonl", lambda rows: rows[0].update(outcome="lost")), "ledger.jsonl:1: not a row of"),
    ("figure", lines("metrics.jsonl", lambda rows: rows[2].update({"reward/mean": 1.5})), "step 3: reward/mean is 1.5"),
    ("step", lines("metrics.jsonl", lambda rows: rows[1:]), "steps are not 1 to 8"),
    ("age", tokens(lambda turn: turn.update(versions=[0] * len(turn["ids"]))), "masked_frac is 0.0, recomputed"),
    ("future", tokens(lambda turn: turn.update(versions=[9] * len(turn["ids"]))), "sampled by version 9, which"),
    ("no logprob", tokens(lambda turn: turn.update(logprobs=[3.0] * len(turn["ids"]))), "a logprob is no logprob"),
    ("half a line", cut("trajectories/step-00004.jsonl"), "step-00004.jsonl:1: not valid JSON"),
    ("no file", lambda run: (run / "trajectories/step-00004.jsonl").unlink(), "step-00004.jsonl: is not there"),
    ("weights", cut("checkpoints/step-00009/model.safetensors"), "checkpoints/step-00009: cannot be read"),
    ("model", cut("model/model.safetensors"), "model: cannot be read"),
    ("tokenizer", lambda run: (run / "model/tokenizer.json").unlink(), "model: cannot be read: model.path"),
    ("summary", lambda run: (run / "summary.json").write_text('{"steps": 4}'), "says 4 steps, the ledger has 9"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "told"), [pair[1:] for pair in DAMAGES], ids=[pair[0] for pair in DAMAGES])
def test_damage_is_found(
    healthy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Damage, told: str
) -> None:
    shutil.copytree(healthy, tmp_path / "run")
    damage(tmp_path / "run")
    with pytest.raises(SystemExit) as end:
        main(["check-run", str(tmp_path / "run"), "--json", "-"])
    assert end.value.code == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["ok"]
    assert any(told in problem for problem in report["problems"]), report["problems"]


def test_a_checkpoint_that_lost_a_task(healthy: Path, tmp_path: Path) -> None:
    shutil.copytree(healthy, tmp_path / "run")
    path = tmp_path / "run/checkpoints/step-00006/state.json"
    state = json.loads(path.read_text())
    state["pipeline"]["in_flight"] = state["pipeline"]["in_flight"][1:]
    path.write_text(json.dumps(state))
    assert any("have neither ended nor will be played" in text for text in check_run(tmp_path / "run").problems)


def test_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["check-run", str(tmp_path)])
    assert end.value.code == 2
    assert "is no run folder" in capsys.readouterr().err
