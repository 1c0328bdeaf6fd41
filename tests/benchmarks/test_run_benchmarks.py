"""The benchmarks of a run: each is run, tiny, and says what it is to say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(name: str, *arguments: str, out: Path) -> dict[str, Any]:
    line = [sys.executable, str(BENCHMARKS / f"{name}.py"), *arguments, "--json", str(out)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_many_episodes(tmp_path: Path) -> None:
    found = run("many_episodes", "--episodes", "64", "--rounds", "2", out=tmp_path / "found.json")
    assert found["settings"] == {"episodes": 64, "turns": 4, "tokens": 256, "group_size": 8, "rounds": 2}
    assert 0 < found["record_us_per_turn"]["median"] < found["us_per_turn"]["median"]
    assert found["bytes_per_line"]["median"] > 1000
    assert {"machine", "versions", "kib_per_episode", "engine_us_per_turn"} <= set(found)
