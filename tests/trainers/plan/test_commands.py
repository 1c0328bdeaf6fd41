"""`agentgym train --dry-run` and `agentgym cluster` as they are typed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from transformers import AutoConfig

from agentgym.cli import main

SMALL = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder with nothing but a config.json."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model"
    AutoConfig.for_model("qwen3", num_hidden_layers=2, head_dim=16, vocab_size=100, **SMALL).save_pretrained(path)
    return str(path)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return int(end.value.code or 0)


def test_a_plan_is_printed_and_nothing_is_started(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentgym.trainers.api.train", lambda *_, **__: pytest.fail("started"))
    assert run("train", "--model", folder, "--plan.gpu=H100", "--dry-run", "--json", "plan.json") == 0
    out = capsys.readouterr().out
    for heading in ("model", "place", "batch", "memory of the learner", "one step", "split", "assumed"):
        assert heading in out
    figures = json.loads((tmp_path / "plan.json").read_text())
    assert figures["fits"] is True
    assert (
        figures["model"]["parameters"]
        == 2 * (3 * 64 * 96 + 2 * 64 * 64 + 2 * 64 * 32 + 2 * 16 + 2 * 64) + 64 + 2 * 6400
    )
    assert {path.name for path in tmp_path.iterdir()} == {"model", "plan.json"}


def test_figures_alone_on_stdout(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--model", folder, "--plan.gpu=cpu", "--dry-run", "--json=-") == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["place"]["gpus"] == 0
    assert "one step" in told.err


def test_a_plan_that_does_not_fit_is_an_error(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    large = {"hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64, "num_key_value_heads": 8}
    AutoConfig.for_model("qwen3", num_hidden_layers=40, head_dim=128, **large).save_pretrained(folder)
    assert run("train", "--model", folder, "--plan.gpu=RTX4090", "--dry-run", "--json", "plan.json") == 2
    told = capsys.readouterr()
    assert "one step" in told.out
    assert "does not fit: learner and engine on one GPU needs" in told.err
    assert json.loads(Path("plan.json").read_text())["fits"] is False
    assert run("cluster", "slurm", "--model", folder, "--plan.gpu=RTX4090", "--out", "job.sh") == 2
    assert not Path("job.sh").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--plan.gpu=H1000", "--dry-run"), "did you mean 'H100'"),
        (("--plan.gpu=H100", "--plan.gpus=1", "--learner.ranks=2", "--dry-run"), "plan.gpus = 1"),
        (("--json", "plan.json"), "give --dry-run too"),
        (("--env=agentgym/Stor-v0", "--dry-run"), "Store-v0"),
    ],
)
def test_what_can_be_mended_is_said(
    folder: str, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", "--model", folder, *arguments) == 2
    assert message in capsys.readouterr().err


def test_a_config_that_contradicts_itself_is_told(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = Path(folder) / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_hidden_layers": 40}))
    assert run("train", "--model", folder, "--plan.gpu=H100", "--dry-run") == 2
    assert "its config.json cannot be used: `num_hidden_layers` (40)" in capsys.readouterr().err


def test_start_files_are_written(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--model", folder, "--plan.gpu=H100", "--cluster.kind=ray", "--engine.kind=sglang")
    assert run("cluster", "slurm", *where, "--name", "My Run", "--out", "job.sh") == 0
    assert subprocess.run(["bash", "-n", "job.sh"], check=False).returncode == 0
    text = Path("job.sh").read_text()
    assert "#SBATCH --job-name=my-run" in text
    assert f"agentgym train --model.path={folder} --plan.gpu=H100" in text
    assert run("cluster", "kuberay", *where, "--out", "-") == 0
    assert "kind: RayJob" in capsys.readouterr().out
    assert run("cluster", "slurm", *where, "--out", "no/such/folder/job.sh") == 2
    assert "cannot be written" in capsys.readouterr().err
