"""The run folder: never half a file, nothing overwritten, every refusal says what to do."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentgym.config import Config, load_config
from agentgym.errors import DataError, RunError
from agentgym.rollout.record import read_trajectories
from agentgym.run_folder import RunFolder, model_path
from agentgym.types import Outcome, StopReason, Trajectory


def trajectory(name: str = "t") -> Trajectory:
    return Trajectory(name, "task", "E-v0", (), (), 1.0, {}, Outcome.correct, StopReason.completed)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "deep" / "run", Config())


def test_create_writes_the_config_that_open_reads(tmp_path: Path) -> None:
    config = load_config("store", ["run.seed=7", "env.args={busy = 0.5}"])
    RunFolder.create(tmp_path / "run", config)
    assert RunFolder.open(tmp_path / "run").load_config() == config


def test_create_takes_an_empty_folder_and_refuses_any_other(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, Config())
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    with pytest.raises(RunError, match=r"not empty: give another --run\.dir, go on with it by --resume"):
        RunFolder.create(tmp_path, Config())
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_create_refuses_a_file_and_keeps_it(tmp_path: Path) -> None:
    file = tmp_path / "run"
    file.write_text("mine")
    with pytest.raises(RunError, match="is there already"):
        RunFolder.create(file, Config())
    with pytest.raises(RunError, match="cannot make the run folder"):
        RunFolder.create(file / "below", Config())
    assert file.read_text() == "mine"


def test_create_in_an_unwritable_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)  # chmod would not stop root, who runs tests in containers
    with pytest.raises(RunError, match="Permission denied"):
        RunFolder.create(tmp_path / "run", Config())


def test_open_refuses_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no such run folder"):
        RunFolder.open(tmp_path / "none")
    with pytest.raises(RunError, match=r"is no run folder: it has no config\.toml"):
        RunFolder.open(tmp_path)
    (tmp_path / "config.toml").write_text("[run]\nsede = 1\n")
    with pytest.raises(RunError, match=r"cannot be resumed: .*unknown key 'run.sede'; did you mean 'run.seed'"):
        RunFolder.open(tmp_path).load_config()


def test_rows_come_back(folder: RunFolder) -> None:
    assert folder.rows("ledger.jsonl") == []
    rows = [{"step": 1, "task": "0:a", "outcome": "trained"}, {"step": 2, "task": "0:é", "outcome": "stale"}]
    for row in rows:
        folder.append("ledger.jsonl", row)
    assert folder.rows("ledger.jsonl") == rows
    with open(folder.path / "ledger.jsonl", "ab") as file:
        file.write(b'{"cut')
    with pytest.raises(DataError, match=r"ledger\.jsonl:3: not valid JSON"):
        folder.rows("ledger.jsonl")


def test_trajectories_and_summary(folder: RunFolder) -> None:
    path = folder.write_trajectories("step-00012", [trajectory("a"), trajectory("b")])
    assert path == folder.path / "trajectories" / "step-00012.jsonl"
    assert [t.id for t in read_trajectories(path)] == ["a", "b"]
    folder.write_summary({"seed": 1, "before": {"sampled": 0.5}})
    assert json.loads((folder.path / "summary.json").read_text()) == {"seed": 1, "before": {"sampled": 0.5}}


def full_disk(*args: Any) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_no_space_while_appending_loses_nothing(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.append("metrics.jsonl", {"step": 1})
    whole = os.write

    def half(descriptor: int, content: bytes) -> int:
        if len(content) < 4:
            full_disk()
        return whole(descriptor, content[: len(content) // 2])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(RunError, match=r"metrics\.jsonl: cannot be written: no disk space is left"):
        folder.append("metrics.jsonl", {"step": 2, "long": "x" * 100})
    monkeypatch.undo()
    folder.append("metrics.jsonl", {"step": 3})
    assert folder.rows("metrics.jsonl") == [{"step": 1}, {"step": 3}]


def test_no_space_while_writing_keeps_the_former_file(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write_summary({"steps": 1})
    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(RunError, match="no disk space is left; what was there is intact"):
        folder.write_summary({"steps": 2})
    assert json.loads((folder.path / "summary.json").read_text()) == {"steps": 1}
    assert not list(folder.path.glob("*.tmp"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_really_full_device(folder: RunFolder) -> None:
    (folder.path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(RunError, match="no disk space is left"):
        folder.append("metrics.jsonl", {"step": 1})


def test_rewind_forgets_what_came_later(folder: RunFolder) -> None:
    folder.append("metrics.jsonl", {"step": 0, "eval": "before"})
    folder.append("metrics.jsonl", {"step": 0, "eval": "after"})  # as a run of no steps leaves it
    for step in (1, 2, 3):
        folder.append("metrics.jsonl", {"step": step})
        folder.append("ledger.jsonl", {"step": step, "task": f"0:{step}", "outcome": "trained"})
        folder.write_trajectories(f"step-{step:05d}", [trajectory()])
    folder.write_trajectories("eval-before", [trajectory()])
    with open(folder.path / "ledger.jsonl", "ab") as file:
        file.write(b'{"step": 1, "task": "cut by a ki')
    folder.rewind(2, evaluated=["before"])
    assert [row["step"] for row in folder.rows("metrics.jsonl")] == [0, 1, 2]
    assert [row["step"] for row in folder.rows("ledger.jsonl")] == [1, 2]
    kept = sorted(p.name for p in folder.trajectories.iterdir())
    assert kept == ["eval-before.jsonl", "step-00001.jsonl", "step-00002.jsonl"]


def test_model_path(folder: RunFolder) -> None:
    assert model_path("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"
    with pytest.raises(RunError, match="has no model yet"):
        model_path(str(folder.path))
    for name in ("step-00003", "step-00010"):
        (folder.checkpoints / name).mkdir()
        (folder.checkpoints / name / "config.json").write_text("{}")
    assert model_path(str(folder.path)) == str(folder.checkpoints / "step-00010")
    folder.model.mkdir()
    (folder.model / "config.json").write_text("{}")
    assert model_path(str(folder.path)) == str(folder.model)
    (folder.model / "config.json").unlink()
    with pytest.raises(RunError, match=r"has no config\.json, it was damaged .*its last checkpoint is .*step-00010"):
        model_path(str(folder.path))


def test_a_folder_in_which_nothing_was_learned_is_given_back(folder: RunFolder) -> None:
    folder.model.mkdir()
    (folder.model / "config.json").write_text("{}")
    (folder.path / "servers").mkdir()
    (folder.path / "servers" / "server-0.log").write_text("out of memory")
    folder.discard()
    assert folder.path.exists(), "a log tells what was wrong"
    (folder.path / "servers" / "server-0.log").unlink()
    folder.discard()
    assert not folder.path.exists()


def test_one_process_trains_in_a_folder(tmp_path: Path) -> None:
    """A second one would end tasks twice, and write the other's checkpoints over."""
    folder = RunFolder.create(tmp_path / "run", Config())
    hold = "import sys, time\nfrom agentgym.run_folder import RunFolder\nwith RunFolder.open(sys.argv[1]).held():\n"
    hold += "    print('held', flush=True)\n    time.sleep(100)\n"
    line = [sys.executable, "-c", hold, str(folder.path)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            with pytest.raises(RunError, match="is being trained by another process"), folder.held():
                pass
        finally:
            other.kill()
    with folder.held():  # and nothing is left of one that was killed
        pass
    with folder.held():
        assert [path.name for path in folder.path.iterdir() if path.is_file()] == ["config.toml"]
