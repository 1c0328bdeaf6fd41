"""`make gpu` without a GPU: its parts are kept apart, its arithmetic is right, and all of it runs at tiny sizes."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

FAULTY = '''
import json, os, signal, subprocess, sys, time

def good(job, report=""):
    job.tell(seen=list(json.loads(open(report).read())["parts"]) if report else [], device=job.device)

def fails(job):
    job.tell(before=1)
    raise ValueError("this is wrong\\nand more")

def killed(job):
    job.tell(before=2)
    os.kill(os.getpid(), signal.SIGKILL)

def slow(job, pids=""):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    job.tell(child=child.pid)
    if pids:
        open(pids + ".new", "w").write(f"{os.getpid()} {child.pid}")
        os.rename(pids + ".new", pids)
    time.sleep(600)

class OutOfMemoryError(RuntimeError):
    """As torch calls it."""

def hungry(job):
    raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

def lacks(job):
    import a_package_that_is_not_there
'''


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    (tmp_path / "faulty.py").write_text(FAULTY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return importlib.import_module("gpu")


def part(module: str) -> Any:
    """One that is imported, from the benchmarks' own folder."""
    return importlib.import_module(f"gpu_parts.{module}")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def test_a_part_that_fails_is_told_and_the_others_run(gpu: Any, tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    parts = [
        gpu.Part("first", "faulty:good", 30),
        gpu.Part("fails", "faulty:fails", 30),
        gpu.Part("killed", "faulty:killed", 30),
        gpu.Part("slow", "faulty:slow", 3),
        gpu.Part("hungry", "faulty:hungry", 30),
        gpu.Part("lacks", "faulty:lacks", 30),
        gpu.Part("last", "faulty:good", 30, {"report": str(out)}),
    ]
    assert gpu.run_parts(parts, out, device="cpu", quick=True, seconds=120) == 1
    report = json.loads(out.read_text())
    found = report["parts"]
    assert {name: one["status"] for name, one in found.items()} == {
        "first": "ok", "fails": "failed", "killed": "failed", "slow": "timeout", "hungry": "out_of_memory",
        "lacks": "missing", "last": "ok",
    }  # fmt: skip
    assert found["fails"]["error"]["type"] == "ValueError"
    assert found["fails"]["error"]["message"] == "this is wrong"
    assert "Traceback" in found["fails"]["error"]["tail"]
    assert (found["fails"]["figures"], found["killed"]["figures"]) == ({"before": 1}, {"before": 2})
    assert "SIGKILL" in found["killed"]["error"]["message"]
    assert not alive(found["slow"]["figures"]["child"])
    # what the last part saw on disk: every part before it
    assert found["last"]["figures"] == {"seen": [part.name for part in parts[:-1]], "device": "cpu"}
    assert report["finished"]


def test_what_there_is_no_time_for_is_not_begun(gpu: Any, tmp_path: Path) -> None:
    parts = [gpu.Part("first", "faulty:good", 30), gpu.Part("second", "faulty:slow", 30)]
    began = time.monotonic()
    assert gpu.run_parts(parts[1:], tmp_path / "gpu.json", device="cpu", quick=True, seconds=gpu.GRACE) == 1
    assert json.loads((tmp_path / "gpu.json").read_text())["parts"] == {"second": {"status": "not_run"}}
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_what_is_killed_leaves_nothing_behind_but_its_results(gpu: Any, tmp_path: Path, how: signal.Signals) -> None:
    out, pids = tmp_path / "gpu.json", tmp_path / "pids"
    slow = f"gpu.Part('slow', 'faulty:slow', 99, {{'pids': {str(pids)!r}}})"
    script = (
        "import gpu\n"
        f"gpu.PARTS = (gpu.Part('good', 'faulty:good', 30), {slow})\n"
        f"gpu.main(['--quick', '--device=cpu', '--json', {str(out)!r}])\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(BENCHMARKS), str(tmp_path)])}
    with subprocess.Popen([sys.executable, "-c", script], env=environment) as process:
        until = time.monotonic() + 30
        while not pids.exists() and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(how)
    left = [int(pid) for pid in pids.read_text().split()]
    while any(alive(pid) for pid in left) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in left)
    report = json.loads(out.read_text())
    assert (list(report["parts"]), report["finished"]) == (["good"], False)


def test_it_fits_into_nine_minutes(gpu: Any) -> None:
    assert sum(part.seconds for part in gpu.PARTS) + gpu.GRACE <= 9 * 60 + gpu.GRACE
    assert 60 * 8.8 + 2 * gpu.GRACE <= 9 * 60


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--parts=nothing"], "there is no nothing"),
        (["--device=cpu"], "add --quick"),
    ],
)
def test_wrong_arguments_are_refused(gpu: Any, capsys: pytest.CaptureFixture[str], arguments: Any, said: str) -> None:
    assert gpu.main(arguments) == 2
    assert said in capsys.readouterr().err


def test_a_python_without_torch_is_told(tmp_path: Path) -> None:
    line = [sys.executable, "-S", str(BENCHMARKS / "gpu.py"), "--json", str(tmp_path / "gpu.json")]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 2
    assert "has no torch" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "gpu.json").exists()


def test_a_torch_that_is_too_old_is_told(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu.importlib.metadata, "version", lambda name: "2.10.1+cu128")
    assert "needs 2.11 or later" in gpu.missing_torch()
    monkeypatch.setattr(gpu.importlib.metadata, "version", lambda name: "2.11.0+cu130")
    assert gpu.missing_torch() == ""


def test_overlap_is_of_the_steps_between_the_first_and_the_last(gpu: Any) -> None:
    def row(wall: float, engine: float, learner: float) -> dict[str, Any]:
        return {
            "rl_wall_s": wall, "trajectories": 8, "trained_tokens": 100.0, "logprob_gap": 1e-6, "success": 0.5,
            "worker/engine/wall_s": engine, "worker/engine/tokens": 40, "worker/engine/steps": 4,
            "time/fwd_bwd": learner, "time/wait_batch": 0.1,
        }  # fmt: skip

    rows = [row(5.0, 5.0, 0.1), row(6.0, 0.9, 0.5), row(7.0, 0.7, 0.7), row(9.0, 0.0, 0.1)]
    found = part("training").figures(rows)
    assert found["steps_seen"] == 2
    assert found["engine_busy"] == pytest.approx(0.8)
    assert found["learner_busy"] == pytest.approx(0.6)
    assert found["overlap"] == pytest.approx(1.4)
    assert found["trajectories_s"] == pytest.approx(8.0)
    assert found["engine_step_ms"] == pytest.approx(200.0)


def test_operations_by_hand(gpu: Any) -> None:
    rows = [SimpleNamespace(ids=np.zeros(n)) for n in (4, 8)]
    facts: Any = SimpleNamespace(worked=100, head=50, layers=2, heads=3, head_size=5)
    # a row of n: 6 x 150 n, and 6 x 2 x 3 x 5 x n^2
    whole = sum(6 * 150 * n + 180 * n**2 for n in (4, 8)) / 12
    learning = part("learning")
    assert learning.operations(facts, rows, frozen=False) == pytest.approx(whole)
    assert whole - learning.operations(facts, rows, frozen=True) == pytest.approx(2 * 150)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("a card of another kind", None),
    ],
)
def test_peaks(gpu: Any, name: str, peak: float | None) -> None:
    assert part("learning").peak_by_name(name) == peak


@pytest.mark.parametrize("kind", ["one_long_row", "packed_rows"])
def test_rows_fill_their_bins(gpu: Any, kind: str) -> None:
    from agentgym.trainers.packing import bins, fill

    learning = part("learning")
    micros = bins(learning.rows_of(kind, 1024, 512), 1024)
    assert len(micros) == learning.PASSES
    assert fill(micros, "packed", 1024) == 1.0


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_all_of_it_at_tiny_sizes(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    line = [sys.executable, str(BENCHMARKS / "gpu.py"), "--quick", "--device=cpu", "--json", str(out)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=390)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(out.read_text())
    figures = {name: one["figures"] for name, one in report["parts"].items()}
    assert {one["status"] for one in report["parts"].values()} == {"ok"}
    assert {"machine", "versions", "gpu", "flash_attn_package", "reached"} <= set(figures["hardware"])
    for name in ("train_full", "train_lora"):
        assert figures[name]["trajectories_s"] > 0
        assert figures[name]["logprob_gap_max"] < 1e-4
        assert 0 < figures[name]["engine_busy"] <= 1.01
    assert figures["train_lora"]["started_from_full_run"]
    assert {name: way["status"] for name, way in figures["weight_sync"]["ways"].items()} == dict.fromkeys(
        ("shared_memory", "disk", "gloo", "handles"), "ok"
    )
    for name in ("learner_0.6b_full", "learner_0.6b_lora", "learner_4b_full", "learner_4b_lora"):
        variants = figures[name]["variants"]
        assert set(variants) == {"one_long_row", "packed_rows", "one_long_row_without_recompute"}
        for found in variants.values():
            assert found["status"] == "ok"
            assert found["tokens_s"] > 0
            assert (found["layout"], found["attention"]) == ("packed", "agentgym_segments")
            assert {"mfu", "memory", "step_s", "operations_per_token"} <= set(found)
        assert variants["one_long_row"]["recompute"]
        assert not variants["one_long_row_without_recompute"]["recompute"]
    assert all(found["chosen"] for found in figures["attention"]["learner"].values())
