"""`agentgym train` itself, recipe `store`: local engine and learner on one device, two processes, a few steps.

A short warm start first, so that rewards differ and there is something to learn; adapters go on from what the full run
has saved. Figures are those of the steps between the first and the last, in which both sides work: a share of 1 is a
side that never waits.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_parts.job import Job, TookTooLong

STEPS, WARM = 16, 120
SPARE = 15.0
"""Seconds before the part's end at which the run is asked to stop; after half of them it is made to."""


class RunFailed(Exception):
    """`agentgym train` did not end well; its last words."""


def run(job: Job, lora: int) -> None:
    if lora:
        import peft  # noqa: F401  # said now rather than by the run
    folder = job.folder / ("train_lora" if lora else "train_full")
    before = job.folder / "train_full" / "model"
    given = before if lora and (before / "config.json").is_file() else None
    command = [sys.executable, "-m", "agentgym", "train", "store", *settings(job, lora, given), f"--run.dir={folder}"]
    began = time.monotonic()
    code, said, in_time = stopped(command, job.left() - SPARE)
    job.tell(command=command[1:], exit_code=code, wall_s=time.monotonic() - began, started_from_full_run=bool(given))
    rows = [row for row in read(folder / "metrics.jsonl") if "eval" not in row]
    if rows:
        job.tell(**figures(rows))
    summary = folder / "summary.json"
    if summary.is_file():
        whole = json.loads(summary.read_text())
        job.tell(summary={key: whole[key] for key in ("steps", "trajectories", "tokens_sampled", "wall_s", "unscored")})
    if not in_time:
        raise TookTooLong(f"agentgym train was stopped after {time.monotonic() - began:.0f} s, at step {len(rows)}")
    if "No module named" in said:
        raise ModuleNotFoundError(said)
    if code:
        raise RunFailed(f"agentgym train ended with {code}: {said}")


def settings(job: Job, lora: int, given: Path | None) -> list[str]:
    """Of the run: everything else is the recipe's."""
    warm = 0 if given else 8 if job.quick else WARM
    chosen: dict[str, Any] = {
        "engine.device": job.device,
        "learner.device": job.device,
        "run.live": "off",
        "eval.tasks": 0,
        "trainer.steps": 4 if job.quick else STEPS,
        "sft.steps": warm,
        "sft.examples": 128 if job.quick else 64 * WARM,
        # a GPU has no cache to fit into, and room for every episode of a step
        "learner.tokens_per_microbatch": 16384,
        "engine.slots": 256,
        "rollout.concurrency": 256,
        "model.lora_rank": lora,
        **({"model.path": given} if given else {}),
        **({"rollout.groups": 4, "rollout.group_size": 4, "model.layers": 1} if job.quick else {}),
    }
    return [f"--{key}={value}" for key, value in chosen.items()]


def stopped(command: Sequence[str], seconds: float) -> tuple[int, str, bool]:
    """Exit code and last word of a run, and whether it ended by itself."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    in_time = True
    try:
        said, _ = process.communicate(timeout=max(1.0, seconds))
    except subprocess.TimeoutExpired:
        in_time = False
        process.send_signal(signal.SIGINT)
        try:
            said, _ = process.communicate(timeout=SPARE / 2)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
    print(said, flush=True)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return process.returncode, next((line for line in reversed(lines) if "rror" in line), (lines or [""])[-1]), in_time


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def figures(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of the steps between the first, which waits for its episodes, and the last, when no more are asked for."""
    seen = rows[1:-1] or rows
    before = rows[0]["rl_wall_s"] if len(rows) > 2 else 0.0

    def total(name: str) -> float:
        return sum(float(row.get(name) or 0.0) for row in seen)

    names = [key for key in seen[0] if key.startswith("time/")]
    parts = {name.removeprefix("time/"): total(name) for name in names}
    span = seen[-1]["rl_wall_s"] - before
    gaps = [row["logprob_gap"] for row in rows if row.get("logprob_gap") is not None]
    engine = total("worker/engine/wall_s")
    return {
        "steps_seen": len(seen),
        "trajectories_s": total("trajectories") / span,
        "sampled_tokens_s": total("worker/engine/tokens") / span,
        "step_s": span / len(seen),
        "logprob_gap_max": max(gaps, default=None),
        "engine_busy": engine / span,
        "learner_busy": parts.get("fwd_bwd", 0.0) / span,
        "overlap": (engine + parts.get("fwd_bwd", 0.0)) / span,
        "engine_step_ms": 1e3 * engine / max(1.0, total("worker/engine/steps")),
        "trained_tokens_s_of_learner": total("trained_tokens") / max(parts.get("fwd_bwd", 0.0), 1e-9),
        "time_s": parts,
        "success": [row.get("success") for row in rows],
        "peak_host_mib": {key: rows[-1].get(f"peak_mem/{key}") for key in ("learner", "worker")},
    }
