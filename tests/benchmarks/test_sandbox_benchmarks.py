"""The soak test and the benchmark against other sandboxes: what they count, and that they notice."""

from __future__ import annotations

import asyncio
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentgym.sandboxes.cpu import tree_cpu
from agentgym.sandboxes.doctor import attempt

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module
    for name in ("soak", "vs_sandboxes", "report"):
        sys.modules.pop(name, None)


def test_a_short_soak_leaves_nothing(tmp_path: Path) -> None:
    if not asyncio.run(attempt("local"))["works"]:
        pytest.skip("no local sandbox on this machine")
    out = tmp_path / "soak.json"
    line = [sys.executable, str(BENCHMARKS / "soak.py"), "--scale", "0.005", "--json", str(out), "--seed", "3"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert (found["left"], found["wrong_count"], found["executions"]) == ([], 0, 250)
    assert found["sessions"] >= 10
    assert found["hostile"] > 0


def test_what_is_left_is_noticed(module: Any) -> None:
    soak = module("soak")
    same = {"processes": 1, "descriptors": 5, "resident": 100}
    found = {"before": same, "warmed": same, "last": same, "closed": same, "wrong": [], "wrong_count": 0}
    found["own_mounts"] = True
    assert soak.left_over(found, slack=10) == []
    grown = {**found, "last": {**same, "resident": 111}, "closed": {**same, "descriptors": 6, "resident": 111}}
    assert soak.left_over(grown, slack=10) == ["resident: 100 warmed, 111 last", "descriptors: 5 before, 6 closed"]
    assert "2 wrong answers" in soak.left_over({**found, "wrong": ["a"], "wrong_count": 2}, slack=10)[0]


def test_ratios_are_taken_within_a_round(module: Any) -> None:
    vs = module("vs_sandboxes")
    took = {
        "ours": [vs.Took(0.001, 0.002), vs.Took(0.002, 0.002)],
        "peer": [vs.Took(0.010, 0.040), vs.Took(0.010, 0.060)],
    }
    found = vs.figures(took)
    assert found["ratio"] == {"peer": pytest.approx(25)}
    assert found["ratio_wall"] == {"peer": pytest.approx(7.5)}
    assert found["spread"]["peer"]["cpu"] == {"median": pytest.approx(25), "low": 20, "high": pytest.approx(30)}


def test_a_side_that_answers_wrongly_is_no_contender(module: Any) -> None:
    vs = module("vs_sandboxes")
    took = vs.command(vs.PYTHON)(2)
    assert 0 < took.cpu < 5
    with pytest.raises(RuntimeError, match="it gave 'no"):
        vs.command(["/bin/echo", "no"])(1)


def test_the_cpu_of_descendants_counts() -> None:
    burn = (
        "import time\nt = time.process_time()\nwhile time.process_time() - t < 0.3: pass\nprint(1, flush=True); input()"
    )
    before = tree_cpu()
    with subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as alive:
        assert alive.stdout is not None
        alive.stdout.readline()
        running = tree_cpu() - before
        alive.communicate(b"\n")
    assert running >= 0.28
    assert tree_cpu() - before >= running
