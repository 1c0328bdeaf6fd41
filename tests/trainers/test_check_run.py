"""A run's folder is held against itself: what a healthy one says, and that each kind of damage is found."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import agentgym as ag
from agentgym.cli import main
from agentgym.trainers.batch import build_rows
from agentgym.trainers.check_ages import count_ages
from agentgym.trainers.check_files import Damaged, check_checkpoint
from agentgym.trainers.check_run import check_run
from agentgym.trainers.step_metrics import row_metrics
from agentgym.types import GIVEN, Completion, Group, Message, Outcome, StopReason, Trajectory, Turn
from tests.trainers.tiny_runs import quick_runs

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
    with quick_runs():
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


def cut(pattern: str, length: int = 100) -> Damage:
    def damage(run: Path) -> None:
        (path,) = run.glob(pattern)
        path.write_bytes(path.read_bytes()[:length])

    return damage


def flip(name: str, near: bytes) -> Damage:
    """One bit, a little behind what is found."""

    def damage(run: Path) -> None:
        data = bytearray((run / name).read_bytes())
        data[data.index(near) + 100] ^= 1
        (run / name).write_bytes(data)

    return damage


def trained(by: int) -> Damage:
    """Another number of trained tokens in the row of the last step from which anything was learned."""

    def change(rows: list[Any]) -> None:
        row = [row for row in rows if row.get("trained_tokens", 0) > 1][-1]
        row["trained_tokens"] += by

    return lines("metrics.jsonl", change)


def tighter(run: Path) -> None:
    """The bound is 0, and the run has trained tokens of the version before."""
    config = (run / "config.toml").read_text()
    assert "max_staleness = 1" in config
    (run / "config.toml").write_text(config.replace("max_staleness = 1", "max_staleness = 0"))


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
    ("too many trained", trained(+5), " of that step are at most 1 versions old"),
    ("too few trained", trained(-1), " that are at most 1 versions old"),
    ("another bound", tighter, " of that step are at most 0 versions old"),
    ("weights", cut("checkpoints/step-00009/model.safetensors"), "step-00009: cannot be read: model.safetensors: "),
    ("state", cut("checkpoints/step-00009/learner.pt", 1000), "step-00009: cannot be read: learner.pt: "),
    ("state's bit", flip("checkpoints/step-00009/learner.pt", b"data.pkl"), "step-00009: cannot be read: learner.pt: "),
    ("no state", lambda run: (run / "checkpoints/step-00009/learner.pt").unlink(), "no state of the learner"),
    ("config", cut("checkpoints/step-00006/config.json"), "step-00006: cannot be read: config.json: "),
    ("model", cut("model/model.safetensors"), "model: cannot be read: model.safetensors: "),
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


def test_the_number_of_trained_tokens_alone_tells_of_one_too_many(healthy: Path, tmp_path: Path) -> None:
    """As where a token too old was not masked: no other figure of the folder says so."""
    shutil.copytree(healthy, tmp_path / "run")
    trained(+1)(tmp_path / "run")
    (problem,) = check_run(tmp_path / "run").problems
    assert "tokens were trained" in problem


def test_tokens_are_counted_once_in_a_tree_and_the_first_of_a_sequence_never() -> None:
    def turn(number: int, parent: int | None, context: int, versions: list[int]) -> Turn:
        done = Completion(np.ones(len(versions), np.int32), np.zeros(len(versions)), np.array(versions), "stop")
        return Turn(number, parent, np.ones(context, np.int32), done, Message("assistant", "x"))

    turns = (
        turn(0, None, 0, [3, 3, 4]),  # nothing predicts the first
        turn(1, 0, 2, [4, GIVEN, 1]),
        turn(2, 0, 1, [2]),  # a branch of its own
    )
    played = Trajectory("t/0", "t", "env", turns, (), 1.0, {}, Outcome.correct, StopReason.completed)
    group = Group("t", "t", "env", (played,))
    nothing, something = np.zeros(3), np.array([0.0, 0.0, 1.0])
    ages = count_ages([group], [[[nothing, something, np.zeros(1)]]], version=4, bound=1)
    assert (ages.sampled, ages.too_old, ages.oldest, ages.total) == (5, 2, 1, 1)
    assert ages.trainable == 3, "the first leaf's sequence is 0 and 1, of the second's nothing is learned"
    rows = build_rows([group], [[[nothing, something, np.zeros(1)]]], version=4, max_staleness=1)
    assert ages.figures == row_metrics(rows)
    assert sum(row.trained for row in rows.rows if row.advantages.any()) == 3


# -- the state of several ranks --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ranked(healthy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with the learner's state in shards, as torch writes them."""
    from torch.distributed.checkpoint.state_dict_saver import save

    folder = tmp_path_factory.mktemp("ranked") / "step-00009"
    shutil.copytree(healthy / "checkpoints/step-00009", folder)
    (folder / "learner.pt").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        save({"a": torch.ones(300, 4), "b": torch.tensor(2)}, checkpoint_id=folder / "learner", no_dist=True)
    (folder / "learner.json").write_text('{"skipped": 0}')
    return folder


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def dangerous(path: Path) -> None:
    class Runs:
        def __reduce__(self) -> Any:
            return Path.mkdir, (path.parent / "ran",)

    path.write_bytes(pickle.dumps(Runs()))


@pytest.mark.parametrize(
    ("name", "damage", "told"),
    [
        ("learner/__0_0.distcp", Path.unlink, r"learner/__0_0.distcp: is not there"),
        ("learner/__0_0.distcp", longer, r"learner/__0_0.distcp: has \d+ bytes, and .metadata says \d+"),
        ("learner/.metadata", Path.unlink, r"learner/.metadata: No such file"),
        ("learner/.metadata", lambda path: path.write_bytes(path.read_bytes()[:500]), r"learner/.metadata: "),
        ("learner/.metadata", dangerous, r"learner/.metadata: "),
        ("learner.json", lambda path: path.write_text('{"skip'), r"learner.json: "),
        ("learner.json", Path.unlink, r"learner.json: No such file"),
        ("annotator.pt", lambda path: path.write_bytes(b"PK"), r"annotator.pt: "),
        ("annotator.pt", lambda path: zipfile.ZipFile(path, "w").close(), r"annotator.pt: holds no state"),
    ],
)
def test_damage_of_a_state_in_shards(
    ranked: Path, tmp_path: Path, name: str, damage: Callable[[Path], Any], told: str
) -> None:
    check_checkpoint(ranked)
    folder = tmp_path / "step-00009"
    shutil.copytree(ranked, folder)
    damage(folder / name)
    with pytest.raises(Damaged, match=f"^{told}"):
        check_checkpoint(folder)
    assert not (folder / "learner/ran").exists(), "what a pickle names is not called"


def test_an_optimizer_that_has_made_no_step_has_no_state(ranked: Path, tmp_path: Path) -> None:
    """As the first checkpoint of ranks, right after the warm start."""
    from torch.distributed.checkpoint.state_dict_saver import save

    folder = tmp_path / "step-00000"
    shutil.copytree(ranked, folder)
    shutil.rmtree(folder / "learner")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        save({}, checkpoint_id=folder / "learner", no_dist=True)
    check_checkpoint(folder)


def test_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["check-run", str(tmp_path)])
    assert end.value.code == 2
    assert "is no run folder" in capsys.readouterr().err
