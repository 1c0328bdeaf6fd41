"""The commands: what they hand on, what they print, how they end."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer

import agentgym
from agentgym import cli
from agentgym.cli import main
from agentgym.config import Config
from agentgym.errors import DataError
from agentgym.run_folder import RunFolder

SUMMARY = {"wall_s": 61.0, "before": {"sampled": 0.25, "by_kind": {"calc": 0.5}}, "trajectories": 512}
SUMMARY |= {"after": {"sampled": 0.9, "greedy": 0.95, "by_kind": {"calc": 1.0}}, "unscored": 0}
AGENT = Path(__file__).resolve().parent.parent / "examples" / "04_existing_agent.py"


def run(*arguments: str) -> int:
    """The exit code of a command in this process."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    code = end.value.code
    return code if isinstance(code, int) else 0


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Config, dict[str, Any]]]:
    """Calls of `agentgym.trainers.api.train`, which is not run."""
    calls: list[tuple[Config, dict[str, Any]]] = []

    def train(config: Config | None = None, *, resume: str | None = None, **given: Any) -> dict[str, Any]:
        config = config or RunFolder.open(resume or "").load_config()
        calls.append((config, {"resume": resume, **given}))
        return dict(SUMMARY)

    monkeypatch.setattr("agentgym.trainers.api.train", train)
    monkeypatch.chdir(tmp_path)
    return calls


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), {"env.id": "agentgym/Store-v0", "run.seed": 0}),
        (("store",), {"env.id": "agentgym/Store-v0"}),
        (("--seed", "3"), {"run.seed": 3}),
        (("--seed=3",), {"run.seed": 3}),
        (("--run.seed", "3"), {"run.seed": 3}),
        (("--run.seed=3",), {"run.seed": 3}),
        (("--steps", "7", "--env", "agentgym/GSM8KTool-v0"), {"trainer.steps": 7, "env.id": "agentgym/GSM8KTool-v0"}),
        (("--model=dir/x",), {"model.path": "dir/x"}),
        (("--trainer.steps", "2", "store", "--rollout.groups=4"), {"trainer.steps": 2, "rollout.groups": 4}),
        (("--run.dir", "there"), {"run.dir": "there"}),
        (("--agent", f"{AGENT}:agent"), {"rollout.agent": f"{AGENT}:agent", "env.id": "agentgym/Store-v0"}),
    ],
)
def test_train_hands_on_its_arguments(
    trained: list[tuple[Config, dict[str, Any]]], arguments: Sequence[str], expected: dict[str, Any]
) -> None:
    assert run("train", *arguments) == 0
    (config, given), *_ = trained
    found = {f"{s}.{k}": v for s, section in config.model_dump().items() if s != "envs" for k, v in section.items()}
    assert {key: found[key] for key in expected} == expected
    assert given["resume"] is None


def test_train_tells_its_figures_and_where_the_run_is(
    trained: list[tuple[Config, dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", "--run.dir=there") == 0
    out = capsys.readouterr().out
    assert out.startswith("[  0.0s]   training in there\n")
    assert "trained in 1m01s" in out
    assert "0.25 -> 0.90" in out
    assert "agentgym play --model there" in out


def test_data_reward_and_tools_are_an_env(trained: list[tuple[Config, dict[str, Any]]], tmp_path: Path) -> None:
    (tmp_path / "tasks.jsonl").write_text('{"question": "1+1?", "answer": "2"}\n')
    (tmp_path / "mine.py").write_text("def score(task, answer, episode):\n    return float(answer == task.answer)\n")
    assert run("train", "--data", "tasks.jsonl", "--reward=mine.py:score", "--tools", "calculator") == 0
    env = trained[0][0].env
    assert (env.id, env.data, env.reward, env.tools) == ("", "tasks.jsonl", "mine.py:score", "calculator")


def test_resume(trained: list[tuple[Config, dict[str, Any]]], tmp_path: Path, capsys: Any) -> None:
    RunFolder.create(tmp_path / "run", Config.model_validate({"run": {"seed": 5}}))
    assert run("train", "--resume", "run") == 0
    assert trained[0][1]["resume"] == "run"
    assert trained[0][0].run.seed == 5
    assert run("train", "--resume=run", "--seed=3", "store") == 2
    assert "only --steps can be more: leave out store, run.seed=3" in capsys.readouterr().err
    assert run("train", "--resume=run", "--steps=300") == 0
    assert trained[1][1]["trainer__steps"] == 300
    assert run("train", "--resume=run", "--steps=1") == 2
    assert "--resume can only lengthen it" in capsys.readouterr().err


def test_interrupt_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    def train(config: Config, **given: Any) -> dict[str, Any]:
        RunFolder.create(config.run.dir, config)
        raise KeyboardInterrupt

    monkeypatch.setattr("agentgym.trainers.api.train", train)
    assert run("train", f"--run.dir={tmp_path / 'run'}") == 130
    assert f"interrupted: go on with agentgym train --resume {tmp_path / 'run'}" in capsys.readouterr().err


def test_a_users_mistake_has_no_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    def train(config: Config, **given: Any) -> dict[str, Any]:
        raise DataError("f.jsonl, line 3: [not] valid JSON")

    monkeypatch.setattr("agentgym.trainers.api.train", train)
    assert run("train", f"--run.dir={tmp_path / 'run'}") == 2
    assert capsys.readouterr().err == "error: f.jsonl, line 3: [not] valid JSON\n"


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def train(config: Config, **given: Any) -> dict[str, Any]:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("agentgym.trainers.api.train", train)
    with pytest.raises(ZeroDivisionError, match="ours"):
        main(["train", f"--run.dir={tmp_path / 'run'}"])


def test_eval_uses_the_runs_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    folder = RunFolder.create(tmp_path / "run", Config.model_validate({"engine": {"max_context": 99}}))
    folder.model.mkdir()
    (folder.model / "config.json").write_text("{}")
    calls: list[tuple[Any, ...]] = []

    def evaluate(model: str, env: Any, **given: Any) -> dict[str, Any]:
        calls.append((model, env, given))
        return {"sampled": 0.5, "n": 8}

    monkeypatch.setattr("agentgym.trainers.api.evaluate", evaluate, raising=False)
    assert run("eval", str(folder.path), "--tasks", "8", "--samples=2", "--greedy", "--json=-", "--seed=4") == 0
    assert json.loads(capsys.readouterr().out) == {"sampled": 0.5, "n": 8}, "stdout is JSON and nothing else"
    model, env, given = calls[0]
    assert model == str(folder.model)
    assert env.id == "agentgym/Store-v0"
    assert (given["tasks"], given["samples"], given["greedy"], given["seed"]) == (8, 2, True, 4)
    assert given["config"].engine.max_context == 99
    file = tmp_path / "out.json"
    assert run("eval", str(folder.path), "--json", str(file)) == 0
    assert json.loads(file.read_text())["n"] == 8
    assert "held-out success" in capsys.readouterr().out
    assert run("eval", str(folder.path), "--json", str(tmp_path / "no" / "out.json")) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("train", "nope"), "unknown recipe 'nope'"),
        (("train", "--trainer.stepz=1"), "unknown key 'trainer.stepz'; did you mean 'trainer.steps'?"),
        (("train", "--trainer.steps=many"), "trainer.steps = 'many'"),
        (("train", "--lr=1"), "did you mean --learner.lr"),
        (("train", "--env", "agentgym/Stor-v0"), "did you mean 'agentgym/Store-v0'?"),
        (("train", "--env", "none.py:env"), "none.py"),
        (("train", "--resume", "none"), "there is no such run folder"),
        (("eval", "model"), "which environment?"),
        (("eval", "model", "--tasks", "0"), "--tasks"),
        (("play", "agentgym/Store-v0", "--human", "--expert"), "choose one"),
        (("play", "agentgym/Store-v0", "--task", "no-such-task"), "no-such-task"),
        (("trian",), "No such command 'trian'"),
    ],
)
def test_mistakes_are_told_and_exit_with_2(
    arguments: Sequence[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    err = capsys.readouterr().err
    assert says in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == [], "nothing was made"


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"agentgym {agentgym.__version__}\n"
    assert run("train", "--help") == 0
    assert "agentgym train --env mine.py:MyEnv" in capsys.readouterr().out
    assert run("train", "--steps=3", "--help-config") == 0
    text = capsys.readouterr().out
    assert "--trainer.steps" in text
    assert "Learner steps." in text


def test_examples_in_the_help_fit_a_terminal() -> None:
    """One that is broken in two cannot be copied."""
    waiting, seen = [typer.main.get_command(cli.app)], 0
    while waiting:
        command = waiting.pop()
        waiting += getattr(command, "commands", {}).values()
        for line in (command.help or "").splitlines():
            if line.startswith("agentgym ") and "agentgym train trains" not in line:
                assert len(line) <= 78, line
                seen += 1
    assert seen > 20


def test_envs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("envs", "--json") == 0
    found = {env["id"]: env for env in json.loads(capsys.readouterr().out)}
    store = found["agentgym/Store-v0"]
    assert store["kinds"] == ["calc", "lookup", "two_lookups"]
    assert {tool["name"] for tool in store["tools"]} == {"lookup", "calculator"}
    assert all(env["description"] and "error" not in env for env in found.values())
    assert run("envs") == 0
    assert "agentgym/GSM8KTool-v0" in capsys.readouterr().out


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["agentgym"] == agentgym.__version__
    assert facts["cores"] >= 1
    assert "cpu" in facts["devices"]
    extras = set(importlib.metadata.metadata("agentgym-train").get_all("Provides-Extra") or ())
    assert set(facts["extras"]) == extras - {"dev", "all"}, "each extra is told of"
    assert run("doctor") == 0
    assert "cores" in capsys.readouterr().out


def command(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "agentgym", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=100, check=False, **more)


def test_exit_codes_of_real_processes() -> None:
    wrong = command("train", "--trainer.stepz=1")
    assert wrong.returncode == 2
    assert wrong.stdout == ""
    assert wrong.stderr.startswith("error: the command line: unknown key 'trainer.stepz'")
    right = command("--version")
    assert (right.returncode, right.stderr) == (0, "")


def test_ctrl_c_in_a_real_process(tmp_path: Path) -> None:
    # a named pipe holds the command while it reads its tasks, so that the signal surely meets it at work
    os.mkfifo(tmp_path / "tasks.jsonl")
    line = [sys.executable, "-m", "agentgym", "play", "--data", str(tmp_path / "tasks.jsonl"), "", "--tools=calculator"]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    writer = os.open(tmp_path / "tasks.jsonl", os.O_WRONLY)  # returns once the command reads
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    os.close(writer)
    assert process.returncode == 130
    assert err == "interrupted\n"
