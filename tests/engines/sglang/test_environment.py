"""The environment that `make test-sglang` builds: told clearly where it cannot be, and never left half made."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[3] / "requirements" / "sglang_cpu.py"


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    spec = importlib.util.spec_from_file_location("sglang_cpu", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_step_that_fails_is_named_with_a_remedy(builder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder.sys, "executable", "/nowhere/python")
    with pytest.raises(SystemExit, match=r"could not be built \(/nowhere/python -m venv .*AGENTGYM_SGLANG_PYTHON"):
        builder.main()
    assert not list(builder.folder().glob(builder.STAMP)), "it is begun anew"


def test_a_pip_that_fails_leaves_no_stamp(builder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    class Result:
        def __init__(self, code: int):
            self.returncode = code

    def run(command: Any, **options: Any) -> Result:
        done.append(" ".join(command))
        return Result(1 if "pip install" in done[-1] else 0)

    monkeypatch.setattr(builder.subprocess, "run", run)
    with pytest.raises(SystemExit, match=r"pip install -q -r .*sglang-cpu.txt: 1\); what went wrong is told above"):
        builder.main()
    assert len(done) == 2
    assert not (builder.folder() / builder.STAMP).exists()


def test_too_little_room_is_said_before_anything_is_fetched(builder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "NEEDED", 1 << 60)
    with pytest.raises(SystemExit, match=r"GiB are free, the SGLang environment takes .*XDG_CACHE_HOME"):
        builder.main()


def test_one_that_is_there_is_only_named(builder: Any, capsys: pytest.CaptureFixture[str]) -> None:
    builder.folder().mkdir(parents=True)
    (builder.folder() / builder.STAMP).touch()
    builder.main()
    assert capsys.readouterr().out.strip() == str(builder.folder() / "bin/python")
