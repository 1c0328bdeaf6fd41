"""Tiny runs that are the same again, that are stopped, killed, lengthened, and go on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentgym as ag
from agentgym.errors import ConfigError
from agentgym.rollout.record import read_trajectories, to_row
from agentgym.run_folder import RunFolder
from agentgym.trainers.check_run import check_run
from agentgym.trainers.checkpoint import load_buffer
from tests.trainers.tiny_runs import SMALL, STEADY, Stopper, comparable, quick_runs, rows, weights


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with quick_runs():
        yield


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """One run that any other of its seed equals."""
    folder = tmp_path_factory.mktemp("runs") / "steady"
    return folder, ag.train(STEADY, run__dir=str(folder), reporter=Stopper())


def test_the_same_seed_is_the_same_run_and_each_counts_its_own_time(
    steady: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    began, cpu_began = time.perf_counter(), time.process_time()
    summary = ag.train(STEADY, run__dir=str(tmp_path / "run"), reporter=Stopper())
    assert 0 < summary["cpu_s"] <= time.process_time() - cpu_began + 0.01, "not what this process did before"
    assert 0 < summary["wall_s"] <= time.perf_counter() - began + 0.01
    assert comparable(tmp_path / "run") == comparable(steady[0])
    assert weights(tmp_path / "run") == weights(steady[0])


def test_another_seed_is_another_run(steady: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    ag.train(STEADY, run__seed=1, run__dir=str(tmp_path / "run"), eval__tasks=0, reporter=Stopper())
    assert weights(tmp_path / "run") != weights(steady[0])


@pytest.mark.parametrize(
    ("stage", "done"),
    [("warm start", 1), ("evaluate before", 4), ("train", 1), ("train", 2), ("evaluate after", 4)],
)
def test_an_interrupted_run_goes_on_where_it_was(
    steady: tuple[Path, dict[str, Any]], tmp_path: Path, stage: str, done: int
) -> None:
    whole, cut = steady[0], tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        ag.train(STEADY, run__dir=str(cut), reporter=Stopper(stage, done))
    assert list((cut / "checkpoints").iterdir()), "there is something to go on from"
    summary = ag.train(resume=str(cut), reporter=Stopper())
    assert (summary["steps"], summary["sft"]) == (3, steady[1]["sft"])
    assert comparable(cut) == comparable(whole)
    assert weights(cut) == weights(whole)
    ledgers = [[(row["step"], row["task"], row["outcome"]) for row in rows(f, "ledger.jsonl")] for f in (cut, whole)]
    assert ledgers[0] == ledgers[1]


def test_a_finished_run_is_only_evaluated_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = ag.train(STEADY, trainer__steps=1, run__dir=str(folder), reporter=Stopper())
    before = comparable(folder), weights(folder)
    again = ag.train(resume=str(folder), reporter=Stopper())
    assert (comparable(folder), weights(folder)) == before, "no row of metrics twice"
    assert again["after"] == first["after"]
    assert (again["trajectories"], again["rl_cpu_s"]) == (first["trajectories"], first["rl_cpu_s"])


def test_a_finished_run_is_lengthened(steady: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """It ends as one that was to be as long from the start: nothing of its two steps is done again or left out."""
    folder = tmp_path / "run"
    ag.train(STEADY, trainer__steps=2, run__dir=str(folder), reporter=Stopper())
    with pytest.raises(ConfigError, match=r"a run of 2 steps; --resume can only lengthen it"):
        ag.train(resume=str(folder), trainer__steps=1, reporter=Stopper())
    with pytest.raises(ConfigError, match=r"only trainer\.steps can be more: leave out run\.seed"):
        ag.train(resume=str(folder), trainer__steps=3, run__seed=4, reporter=Stopper())
    summary = ag.train(resume=str(folder), trainer__steps=3, reporter=Stopper())
    assert (summary["steps"], RunFolder.open(folder).load_config().trainer.steps) == (3, 3)
    assert comparable(folder) == comparable(steady[0])
    assert weights(folder) == weights(steady[0])
    assert not check_run(folder).problems


class Slow(Stopper):
    """Gives play the time to run ahead."""

    def advance(self, done: int, **fields: float | str) -> None:
        if self.at == "train":
            time.sleep(2.0)
        super().advance(done, **fields)


def test_groups_that_wait_to_be_trained_are_in_the_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    settings = {**SMALL, "rollout": {**SMALL["rollout"], "max_staleness": 2, "workers": 1}, "eval": {"tasks": 0}}
    with pytest.raises(KeyboardInterrupt):
        ag.train(settings, run__processes=2, run__dir=str(folder), reporter=Slow("train", 2))
    (checkpoint,) = (folder / "checkpoints").glob("step-00002")
    waiting = load_buffer(checkpoint)
    assert waiting, "play runs ahead, and the learner was slow"
    ag.train(resume=str(folder), reporter=Stopper())
    trained = {t.id: t for path in folder.glob("trajectories/step-0000[34].jsonl") for t in read_trajectories(path)}
    for group in waiting:
        for trajectory in group.trajectories:
            assert to_row(trained[trajectory.id]) == to_row(trajectory), "not played again"
    assert not check_run(folder).problems


def test_a_run_killed_before_its_first_checkpoint_begins_anew(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        ag.train(
            SMALL, sft__steps=0, eval__tasks=0, trainer__steps=3, run__dir=str(folder), reporter=Stopper("train", 2)
        )
    (folder / "checkpoints" / "step-00002").rename(tmp_path / "gone")
    ag.train(resume=str(folder), reporter=Stopper())
    assert [row["step"] for row in rows(folder, "metrics.jsonl") if "reward/mean" in row] == [1, 2, 3]
    tasks = Counter(row["task"] for row in rows(folder, "ledger.jsonl"))
    assert (len(tasks), set(tasks.values())) == (6, {1})


def test_a_run_that_was_killed_repeats_only_what_no_checkpoint_has(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        ag.train(SMALL, run__dir=str(folder), reporter=Stopper("train", 3))
    # as after a SIGKILL between the checkpoint of step 2 and the next: what came later is on disk, but not in it
    (folder / "checkpoints" / "step-00003").rename(tmp_path / "gone")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "rew')  # the line that was being written
    ag.train(resume=str(folder), reporter=Stopper())
    assert [row["step"] for row in rows(folder, "metrics.jsonl") if "reward/mean" in row] == [1, 2, 3, 4]
    tasks = Counter(row["task"] for row in rows(folder, "ledger.jsonl"))
    assert (len(tasks), set(tasks.values())) == (8, {1})
