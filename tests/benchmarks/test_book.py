"""BENCHMARKS.md says what the files of results say, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def written(results: Path, out: Path) -> str:
    line = [sys.executable, str(ROOT / "benchmarks" / "book.py"), "--results", str(results), "--out", str(out)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out.read_text()


def test_the_page_in_the_repository_is_that_of_its_results(tmp_path: Path) -> None:
    page = written(Path("benchmarks/results"), tmp_path / "page.md")
    assert page == (ROOT / "BENCHMARKS.md").read_text(), "run: python benchmarks/book.py"


def test_what_is_lost_and_what_is_missing_is_said(tmp_path: Path) -> None:
    spread = {"median": 0.5, "low": 0.4, "high": 0.6}
    report = {"spread": {"ours": spread, "trl": spread, "ratio": spread}}
    (tmp_path / "vs_trl.json").write_text(json.dumps(report))
    page = written(tmp_path, tmp_path / "page.md")
    assert "| **0.5 (0.4 to 0.6), lost** |" in page
    assert "Not measured: `make study-seeds` writes it." in page
