"""Evaluations that are really played, with a tiny model: recorded, killed, gone on with, compared."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import agentgym as ag
from agentgym.cli import main
from agentgym.config import load_config
from agentgym.errors import CompareError, ConfigError, RunError
from agentgym.evals.compare import compare, load_side
from agentgym.evals.folder import EvalFolder, file_names
from agentgym.evals.matrix import make_matrix
from agentgym.rollout.record import read_trajectories
from agentgym.run_folder import RunFolder
from agentgym.trainers.api import resume_evaluation

QUICK = {"run.processes": 1, "run.live": "off", "rollout.max_tokens": 8, "rollout.concurrency": 4}
TIMES = ("seconds", "folder")


def play(model: str, env: str, out: Path | None = None, **more: Any) -> dict[str, Any]:
    config = load_config(None, {**QUICK, "env.id": env})
    return ag.evaluate(model, env, config=config, out=str(out) if out else None, **{"tasks": 12, "samples": 4, **more})


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main([*arguments])
    return end.value.code if isinstance(end.value.code, int) else 0


def timeless(report: dict[str, Any]) -> dict[str, Any]:
    envs = {name: {k: v for k, v in env.items() if k not in TIMES} for name, env in report["envs"].items()}
    return {**{k: v for k, v in report.items() if k not in TIMES}, "envs": envs}


def episodes(folder: Path) -> dict[Any, Any]:
    """Rows by key, and the tokens of every episode by its id; without times."""
    rows = {key: replace(row, seconds=0.0) for key, row in EvalFolder.open(folder).rows().items()}
    (file,) = (folder / "trajectories").iterdir()
    return {**rows, **{t.id: [turn.completion.ids.tolist() for turn in t.turns] for t in read_trajectories(file)}}


@pytest.fixture(scope="module")
def coin(envs: Path) -> str:
    return f"{envs / 'coin.py'}:coin"


@pytest.fixture(scope="module")
def whole(model: str, coin: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """An evaluation that was not interrupted."""
    out = tmp_path_factory.mktemp("whole") / "eval"
    return out, play(model, coin, out)


def test_a_folder_has_every_episode_and_the_report(whole: tuple[Path, dict[str, Any]]) -> None:
    out, report = whole
    rows = EvalFolder.open(out).rows()
    assert len(rows) == report["n"] == 48
    assert report["success"] == pytest.approx(sum(row.won for row in rows.values()) / 48)
    assert 0 < report["success"] < 1, "else the tests below would compare nothing"
    assert report["pass@1"] == pytest.approx(report["success"])
    assert report["pass^4"] <= report["pass^1"] <= report["pass@4"]
    assert len({row.seed for row in rows.values()}) == 48
    stored = json.loads((out / "report.json").read_text())
    assert stored == json.loads(json.dumps(report))
    assert "| pass@4 |" in (out / "report.md").read_text()
    lines = next((out / "trajectories").iterdir()).read_text().splitlines()
    assert {json.loads(line)["id"] for line in lines} == {
        f"eval:sampled:{row.env}:{row.task}/{row.sample}" for row in rows.values()
    }


def test_neither_samples_nor_order_change_an_episode(whole: tuple[Path, dict[str, Any]], model: str, coin: str) -> None:
    out, _ = whole
    fewer = play(model, coin, samples=1, tasks=5)
    rows = [row for (_, task, sample), row in EvalFolder.open(out).rows().items() if sample == 0 and task < 5]
    assert fewer["success"] == sum(row.won for row in rows) / 5
    assert play(model, coin, samples=1, tasks=5, seed=9)["seed"] == 9


def test_killed_and_gone_on_with(whole: tuple[Path, dict[str, Any]], model: str, coin: str, tmp_path: Path) -> None:
    out = tmp_path / "eval"
    options = [f"--{key}={value}" for key, value in QUICK.items()]
    line = [sys.executable, "-m", "agentgym", "eval", model, "--env", coin, "--tasks=12", "--samples=4", *options]
    process = subprocess.Popen([*line, "--out", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    file = out / "episodes.jsonl"
    while process.poll() is None and not (file.exists() and file.read_bytes().count(b"\n") >= 6):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.stderr.read() if process.stderr else ""
    before = file.read_bytes()
    assert 6 <= before.count(b"\n") < 48, "it was killed in the middle"
    file.write_bytes(before + b'{"env": "torn')  # the worst that a kill leaves
    with open(next((out / "trajectories").iterdir()), "ab") as lines:
        lines.write(b'{"id": "eval:')
    with pytest.raises(CompareError, match="episodes are missing: eval --resume"):
        load_side(str(out))
    report = resume_evaluation(str(out))
    assert file.read_bytes().startswith(before), "what was played stays as it is"
    assert timeless(report) == timeless(whole[1])
    assert episodes(out) == episodes(whole[0])
    found = [json.loads(text)["id"] for text in next((out / "trajectories").iterdir()).read_text().splitlines()]
    assert len(found) == len(set(found)) == 48
    assert timeless(resume_evaluation(str(out))) == timeless(report), "there is nothing left to play"


def test_another_model_in_its_place_is_refused(model: str, coin: str, tmp_path: Path) -> None:
    import shutil

    other = shutil.copytree(model, tmp_path / "model")
    play(str(other), coin, tmp_path / "eval", tasks=2, samples=1)
    rows = tmp_path / "eval" / "episodes.jsonl"
    rows.write_text(rows.read_text().splitlines()[0] + "\n")
    os.utime(other / "model.safetensors", (1, 1))
    with pytest.raises(RunError, match="has changed since"):
        resume_evaluation(str(tmp_path / "eval"))
    with pytest.raises(RunError, match="is there already and not empty"):
        play(model, coin, tmp_path / "eval")


def test_several_environments_a_suite_and_thresholds(model: str, envs: Path, tmp_path: Path, capsys: Any) -> None:
    suite = tmp_path / "suite.toml"
    suite.write_text(
        f"samples = 2\n[[env]]\nid = '{envs}/coin.py:coin'\nname = 'coin'\ntasks = 3\n"
        f"[[env]]\nid = '{envs}/coin.py:length'\nname = 'length'\nmin = {{success = 1.0, 'pass@2' = 0.0}}\n"
    )
    options = [f"--{key}={value}" for key, value in QUICK.items()]
    out, page = tmp_path / "out", tmp_path / "page.md"
    code = run(
        "eval", model, "--suite", str(suite), "--out", str(out), "--markdown", str(page), "--min=scored=1", *options
    )
    said = capsys.readouterr()
    assert code == 1
    assert "below --min: length: success" in said.err
    assert said.err.count("below") == 1
    report = json.loads((out / "report.json").read_text())
    assert {name: (env["n"], env["tasks"]) for name, env in report["envs"].items()} == {
        "coin": (6, 3),
        "length": (8, 4),
    }
    mean = sum(env["success"] for env in report["envs"].values()) / 2
    assert report["success"] == pytest.approx(mean)
    assert "| coin | length | mean |" in page.read_text()
    assert sorted(path.name for path in (out / "trajectories").iterdir()) == ["coin.jsonl", "length.jsonl"]
    assert run("eval", "--resume", str(out), "--json=-") == 1, "the thresholds are part of the plan"
    assert json.loads(capsys.readouterr().out)["n"] == 14


def test_what_cannot_be_scored_is_no_zero(model: str, envs: Path, tmp_path: Path, capsys: Any) -> None:
    options = [f"--{key}={value}" for key, value in QUICK.items()]
    code = run("eval", model, "--env", f"{envs}/coin.py:broken", f"--out={tmp_path / 'out'}", *options)
    err = capsys.readouterr().err
    assert code == 2
    assert "none of 4 episodes could be played and scored" in err
    assert "the grader is down" in err
    assert "Traceback" not in err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["success"], report["unscored"], report["sampled"]) == (None, 4, None)
    with pytest.raises(CompareError, match="no task was scored"):
        compare(load_side(str(tmp_path / "out")), load_side(str(tmp_path / "out")))


def test_compare(whole: tuple[Path, dict[str, Any]], model: str, coin: str, tmp_path: Path, capsys: Any) -> None:
    a, report = whole
    play(model, coin, tmp_path / "greedy", greedy=True)
    same = compare(load_side(str(a)), load_side(str(a / "report.json")))
    assert (same["difference"], same["p"]) == (0.0, 1.0)
    assert same["ci"][0] < 0 < same["ci"][1]
    found = compare(load_side(str(a)), load_side(str(tmp_path / "greedy")))
    (env,) = found["envs"].values()
    assert env["a"] == pytest.approx(report["success"])
    assert found["difference"] == pytest.approx(env["b"] - env["a"])
    assert len(env["better"]) + len(env["worse"]) == sum(x["a"] != x["b"] for x in [*env["better"], *env["worse"]])
    assert env["better"] or env["worse"]
    assert run("eval", "--compare", str(a), str(tmp_path / "greedy")) == 0
    out = capsys.readouterr().out
    assert "B - A" in out
    assert "could" in out or "B is" in out


def test_compare_refuses_what_was_not_the_same(
    whole: tuple[Path, dict[str, Any]], model: str, envs: Path, coin: str, tmp_path: Path, capsys: Any
) -> None:
    a = load_side(str(whole[0]))
    others = {
        "tasks differ: 12 and 3": {"tasks": 3},
        "samples differ: 4 and 1": {"samples": 1},
        "seeds differ": {"seed": 5, "tasks": 2},
    }
    for i, (says, given) in enumerate(others.items()):
        play(model, coin, tmp_path / str(i), **given)
        with pytest.raises(CompareError, match=says):
            compare(a, load_side(str(tmp_path / str(i))))
    play(model, f"{envs}/coin.py:length", tmp_path / "other")
    assert run("eval", "--compare", str(whole[0]), str(tmp_path / "other")) == 2
    assert "their environments differ" in capsys.readouterr().err
    with pytest.raises(RunError, match="there is no evaluation in it"):
        load_side(str(tmp_path))
    run_folder = RunFolder.create(tmp_path / "run", load_config())
    with pytest.raises(RunError, match="is a run, not an evaluation"):
        load_side(str(run_folder.path))


def test_another_task_under_the_same_id_is_refused(model: str, tmp_path: Path) -> None:
    config = load_config(None, {**QUICK, "env.id": "", "env.data": str(tmp_path / "tasks.jsonl")})
    for name, asked in (("a", "Say one."), ("b", "Say two.")):
        (tmp_path / "tasks.jsonl").write_text(json.dumps({"id": "t", "question": asked, "answer": "1"}) + "\n")
        ag.evaluate(model, config.env, config=config, out=str(tmp_path / name))
    with pytest.raises(CompareError, match="task 0 is another"):
        compare(load_side(str(tmp_path / "a")), load_side(str(tmp_path / "b")))


def test_a_matrix_against_the_first_and_against_before(
    whole: tuple[Path, dict[str, Any]], model: str, envs: Path, coin: str, tmp_path: Path, capsys: Any
) -> None:
    import shutil

    config = load_config(None, {**QUICK, "env.id": coin})
    run_folder = RunFolder.create(tmp_path / "run", config)
    shutil.copytree(model, run_folder.model)
    before = next((whole[0] / "trajectories").iterdir())
    shutil.copy(before, run_folder.trajectories / "eval-before.jsonl")
    options = [f"--{key}={value}" for key, value in QUICK.items()]
    names = ["--env", coin, "--env", f"{envs}/coin.py:length", "--tasks=4", "--samples=2", f"--out={tmp_path / 'mx'}"]
    line = ["eval", "--matrix", model, str(run_folder.path), *names, *options, "--json", str(tmp_path / "mx.json")]
    assert run(*line) == 0
    matrix = json.loads((tmp_path / "mx.json").read_text())
    first, second = matrix["rows"]
    assert "vs_first" not in first["envs"][coin]
    assert second["envs"][coin]["vs_first"]["difference"] == 0.0, "the same weights"
    assert "vs_before" not in first["envs"][coin], "a model folder was never trained here"
    assert second["envs"][coin]["vs_before"]["difference"] == 0.0
    assert second["envs"][coin]["vs_before"]["tasks"] == 4
    assert run(*line) == 0, "an earlier matrix is gone on with"
    assert make_matrix([load_side(str(tmp_path / "mx" / "model"))])["rows"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("m", "--env", "E", "--k", "x"), "--k 'x'"),
        (("m", "--env", "E", "--min", "speed=1"), "no figure 'speed'"),
        (("m", "n", "--env", "E"), "give one model"),
        ((), "give one model"),
        (("m", "--compare"), "--compare needs two"),
        (("m", "--compare", "--matrix"), "choose one"),
        (("--matrix",), "--matrix needs models"),
        (("--resume", "none"), "there is no evaluation in it"),
        (("--resume", "none", "m", "--run.seed=1"), "leave out m, run.seed=1"),
        (("m", "--retry-unscored", "--env", "E"), "belongs to --resume"),
        (("m", "--suite", "none.toml"), "suite none.toml: cannot be read"),
        (("m", "--suite", "none.toml", "--env", "E"), "leave out --env"),
        (("m", "--env", "A", "--env", "B", "--data", "x"), "belong to one --env"),
        (("http://u:p@host/v1", "--env", "E"), "holds a user, password or query"),
        (("m", "--env", "agentgym/Store-v0", "--env", "agentgym/Store-v0"), "is there twice"),
        (("m", "--env", "agentgym/Store-v0", "--samples=4", "--k=8"), "pass@8 cannot be told from 4 samples"),
    ],
)
def test_mistakes(
    arguments: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("eval", *arguments) == 2
    err = capsys.readouterr().err
    assert says in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_names_of_files() -> None:
    assert file_names(["a/Store-v0", "b/Store-v0", "x y:z", ""]) == ["Store-v0", "Store-v0-1", "x-y-z", "env"]
    with pytest.raises(ConfigError, match="is there twice"):
        ag.evaluate("m", ["agentgym/Store-v0", "agentgym/Store-v0"])
