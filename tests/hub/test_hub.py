"""Models and data sets by Hugging Face id, against a hub of our own: trained from, and told what is wrong with them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentgym.config import load_config
from agentgym.envs.data_files import DataFiles, _download, find_files
from agentgym.envs.gsm8k_tool import GSM8KToolEnv
from agentgym.errors import DataError, ModelError
from agentgym.hub import check_model

MODEL, DATA = "tiny/Qwen3-random", "someone/sums"


@pytest.fixture(scope="module")
def stocked(hub: Any, save_tiny: Callable[[str, Path], None]) -> Any:
    """The hub with a model, one without weights, and data sets of several layouts."""
    for name in (MODEL, "tiny/no-weights"):
        (hub.root / "models" / name).mkdir(parents=True)
    save_tiny("qwen3", hub.root / "models" / MODEL)
    shutil.copy(hub.root / "models" / MODEL / "config.json", hub.root / "models/tiny/no-weights")
    files = {"train.jsonl": 12, "test.jsonl": 3, "validation.jsonl": 2, "README.md": 1}
    for name, count in files.items():
        _write(hub.root / "datasets" / DATA / name, name, count)
    for name in ("main/train.jsonl", "main/test.jsonl", "socratic/train.jsonl"):
        _write(hub.root / "datasets/someone/folders" / name, name, 4)
    _write(hub.root / "datasets/someone/texts/data.txt", "", 1)
    return hub


def _write(path: Path, word: str, count: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"question": f"{word}: what is {i}+{i}?", "answer": f"#### {i + i}"} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _point(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def here(stocked: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """This process talks to the loopback hub, with an empty cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", stocked.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", stocked.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    _download.cache_clear()
    return stocked


def test_a_data_set_brings_its_own_split(here: Any) -> None:
    env = GSM8KToolEnv(data=DATA)
    assert len(env.tasks("train")) == 12
    assert [str(task.prompt).partition(":")[0] for task in env.tasks("test")] == ["test.jsonl"] * 3
    here.asked.clear()
    assert len(GSM8KToolEnv(data=DATA).tasks("train")) == 12
    assert not here.asked, "downloaded once"


def test_a_folder_of_a_data_set(here: Any) -> None:
    with pytest.raises(DataError, match=r"say which: someone/folders:main \| someone/folders:socratic"):
        find_files("someone/folders")
    files = find_files("someone/folders:main")
    assert files.train[0].endswith("main/train.jsonl")
    assert files.test[0].endswith("main/test.jsonl")
    assert find_files("someone/folders:socratic").test == (), "one file is split by the questions' hash"
    assert len(find_files("someone/folders:main/test.jsonl").train) == 1


def test_parquet(here: Any, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"question": f"{i}+1?", "answer": f"#### {i + 1}"} for i in range(5)]
    folder = here.root / "datasets/someone/columns/data"
    folder.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "train-00000-of-00001.parquet")
    env = GSM8KToolEnv(data="someone/columns", holdout=0.0)
    assert [task.answer for task in env.tasks("train")] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("someone/nothing", "no such file here, and http.* has none of that name"),
        ("someone/sums@v9", "has no such revision"),
        ("someone/texts", r"no JSONL or Parquet file; there is data\.txt"),
        ("someone/sums:deep", "no JSONL or Parquet file in deep; there is README.md"),
    ],
)
def test_data_that_cannot_be_had(here: Any, data: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        find_files(data)


def test_paths_are_never_looked_up(here: Any, tmp_path: Path) -> None:
    here.asked.clear()
    assert find_files("missing/train.jsonl") == DataFiles(("missing/train.jsonl",))
    assert find_files(str(tmp_path / "a" / "b")) == DataFiles((str(tmp_path / "a" / "b"),))
    for path in ("./none", str(tmp_path / "none"), "a/b/c"):
        with pytest.raises(ModelError, match="there is no such folder"):
            check_model(path)
    assert not here.asked


def test_a_model_is_looked_up_before_it_is_loaded(here: Any) -> None:
    check_model(MODEL)
    with pytest.raises(ModelError, match="'tiny/no-weights': has no weights"):
        check_model("tiny/no-weights")
    with pytest.raises(ModelError, match=r"'tiny/absent': there is no such folder here, and http.* has none of that"):
        check_model("tiny/absent")


def test_a_hub_that_cannot_be_reached(here: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = "http://127.0.0.1:9"
    _point(monkeypatch, nowhere)
    with pytest.raises(ModelError, match=f"{nowhere} cannot be reached"):
        check_model("tiny/other")
    with pytest.raises(DataError, match=f"{nowhere} cannot be reached"):
        find_files("someone/other")


def test_folders_that_hold_no_model(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="is a file"):
        check_model(str(tmp_path / "file"))
    with pytest.raises(ModelError, match=r"no config\.json"):
        check_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="no weights"):
        check_model(str(tmp_path))


COMMANDS = """
import json, sys
from agentgym.cli import main
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
        code = 0
    except SystemExit as end:
        code = end.code or 0
    print("exit", code, file=sys.stderr, flush=True)
"""
SMALL = ("--trainer.steps=1", "--rollout.groups=2", "--rollout.group_size=2", "--rollout.max_tokens=6")
SMALL += ("--eval.tasks=2", "--run.live=off", "--run.processes=1")


@pytest.mark.slow
def test_training_from_ids(stocked: Any, tmp_path: Path) -> None:
    commands = [
        ["train", "gsm8k", f"--model.path={MODEL}", f"--data={DATA}", "--run.dir=run", *SMALL],
        ["train", "gsm8k", "--model.path=tiny/no-weights", "--run.dir=other", *SMALL],
        ["train", "gsm8k", "--model.path=tiny/absent", "--run.dir=other", *SMALL],
    ]
    surroundings = {**os.environ, "HF_ENDPOINT": stocked.url, "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)],
        capture_output=True, text=True, timeout=110, check=False, cwd=tmp_path, env=surroundings,
    )  # fmt: skip
    lines = [line for line in done.stderr.splitlines() if line.startswith(("exit", "error"))]
    assert lines[0] == "exit 0", done.stderr
    assert "'tiny/no-weights': has no weights" in lines[1]
    assert "has none of that name" in lines[3]
    assert lines[2] == lines[4] == "exit 2"
    assert "Traceback" not in done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["steps"], summary["trajectories"], summary["unscored"]) == (1, 4, 0)
    assert summary["before"]["n"] == 2
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    assert load_config(tmp_path / "run" / "config.toml").model.path == MODEL
    assert not (tmp_path / "other").exists(), "a run that could not begin leaves nothing in the way of the next"
