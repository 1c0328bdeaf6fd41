"""Runs that are killed at random moments and resumed until they are done: is anything lost?

    python benchmarks/sigkill_study.py --json FILE [--short 17] [--full 3] [--seed 0] [--recipe store] [--keep DIR]
        [--eval.tasks=24 ...]

Each run is `agentgym train` in a process group of its own; at a random moment SIGKILL goes to the whole group (driver,
rollout worker, sandboxes), and `--resume` goes on, up to six times, until the run ends by itself. A third of the
moments are a random part of the time that an undisturbed run takes, starting and warm start included; the others come
up to two steps' time after a random step is in the ledger. `--short` runs are small (6 steps, a short warm start),
`--full` ones the whole recipe. Options after these go to all runs.

What is looked for, by `agentgym check-run` and here: tasks that were skipped (of those that the run asked for, in the
order in which it asks) and tasks that ended twice; files that cannot be read; the success after the last step beside
that of the undisturbed run of the same seed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from report import machine, versions, write

SHORT = (
    "--trainer.steps=6", "--trainer.checkpoint_every=2", "--sft.steps=40", "--sft.examples=2560", "--eval.tasks=40",
)  # fmt: skip
KILLS = 6
"""A run is killed at most so often; then it may end."""
BY_TIME = 1 / 3
"""Share of the moments that are drawn by time alone."""


class Attempt:
    """One life of a run: its process group, and how it ended."""

    def __init__(self, line: Sequence[str], log: Path):
        with log.open("ab") as out:
            self.process = subprocess.Popen(line, stdout=out, stderr=out, start_new_session=True)

    def wait(self, seconds: float | None) -> int | None:
        """The exit code; None where it still runs after so long."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def wait_for_step(self, folder: Path, step: int, more: float) -> int | None:
        """The exit code; None where it still runs so many seconds after a step is in the ledger."""
        while (code := self.wait(0.05)) is None:
            if steps_done(folder) >= step:
                return self.wait(more)
        return code

    def kill(self) -> None:
        """All of it, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def train(recipe: str, folder: Path, options: Sequence[str]) -> list[str]:
    begun = (folder / "config.toml").is_file()  # killed before that, there is nothing to go on with
    what = ["--resume", str(folder)] if begun else [recipe, f"--run.dir={folder}", "--run.live=off", *options]
    return [sys.executable, "-m", "agentgym", "train", *what]


def undisturbed(recipe: str, folder: Path, options: Sequence[str]) -> tuple[float, dict[str, Any]]:
    """Seconds that a run takes, and what came of it."""
    began = time.monotonic()
    log = folder.with_suffix(".log")
    if code := Attempt(train(recipe, folder, options), log).wait(None):
        sys.exit(f"the undisturbed run ended with {code}:\n{log.read_text()[-2000:]}")
    return time.monotonic() - began, outcome(folder)


def disturbed(
    recipe: str,
    folder: Path,
    options: Sequence[str],
    undisturbed: tuple[float, dict[str, Any]],
    draw: random.Random,
    kills: int,
) -> dict[str, Any]:
    """Kill and resume until it ends. undisturbed: the seconds of such a run, and what came of it."""
    seconds, whole = undisturbed
    log = folder.with_suffix(".log")
    killed: list[dict[str, Any]] = []
    began = time.monotonic()
    while True:
        attempt = Attempt(train(recipe, folder, options), log)
        done, steps = steps_done(folder), int(whole["steps"])
        if len(killed) >= kills:
            code = attempt.wait(20 * seconds + 600)
        elif draw.random() < BY_TIME or done >= steps:
            code = attempt.wait(draw.uniform(0.02, 0.9) * seconds)
        else:
            more = draw.uniform(0.0, 2.0) * whole["step_seconds"]
            code = attempt.wait_for_step(folder, draw.randint(done + 1, steps), more)
        if code is None:
            attempt.kill()
            killed.append({"after_s": round(time.monotonic() - began, 2), "step": steps_done(folder)})
            if len(killed) > kills:
                return {"killed": killed, "error": "it does not end"}
            continue
        if code:
            return {"killed": killed, "error": f"exit code {code}: {log.read_text()[-2000:]}"}
        return {"killed": killed, **outcome(folder)}


def steps_done(folder: Path) -> int:
    """Whole lines of the ledger, in steps."""
    path = folder / "ledger.jsonl"
    found = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    rows = [json.loads(line) for line in found if line.endswith(b"\n")]
    return max((row["step"] for row in rows), default=0)


def outcome(folder: Path) -> dict[str, Any]:
    """What a finished run's folder says, held against itself and against the order in which it asks for tasks."""
    line = [sys.executable, "-m", "agentgym", "check-run", str(folder), "--json", "-"]
    checked = json.loads(subprocess.run(line, capture_output=True, text=True, check=False).stdout)
    rows = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    ended = Counter(row["task"] for row in rows)
    summary = json.loads((folder / "summary.json").read_text())
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    spent = [sum(v for k, v in row.items() if k.startswith("time/")) for row in metrics if "reward/mean" in row]
    return {
        "steps": summary["steps"],
        "tasks": len(ended),
        "ended_twice": sum(count - 1 for count in ended.values()),
        "skipped": len(asked(folder, len(ended)) - set(ended)),
        "problems": checked["problems"],
        "unreadable": [text for text in checked["problems"] if "cannot be read" in text or "not valid JSON" in text],
        "success": {when: summary[when].get("sampled") for when in ("before", "after")},
        "wall_s": summary["wall_s"],
        "step_seconds": sum(spent) / max(1, len(spent)),
    }


def asked(folder: Path, count: int) -> set[str]:
    """The first `count` tasks that the run asks for; none where it chooses them by success (`rollout.focus`)."""
    from agentgym.rollout.worker import env_factory
    from agentgym.run_folder import RunFolder
    from agentgym.trainers.frontier import Frontier, TaskSource

    config = RunFolder.open(folder).load_config()
    if config.rollout.focus:
        return set()
    make = env_factory(config)
    sources = [TaskSource(e.label, [t.id for t in make(e.label).tasks("train")], e.weight) for e in config.all_envs]
    frontier = Frontier(sources, config.rollout.group_size, config.run.seed, config.rollout.temperature)
    return {frontier.next().id for _ in range(count)}


def study(
    name: str, count: int, recipe: str, options: Sequence[str], home: Path, draw: random.Random
) -> dict[str, Any]:
    if not count:
        return {}
    seconds, whole = undisturbed(recipe, home / f"{name}-whole", options)
    print(f"{name}: undisturbed {seconds:.0f} s, success {whole['success']['after']}", flush=True)
    runs = []
    for number in range(count):
        kills = draw.randint(1, KILLS)
        found = disturbed(recipe, home / f"{name}-{number}", options, (seconds, whole), draw, kills)
        runs.append(found)
        at = ", ".join(f"step {kill['step']}" for kill in found["killed"])
        told = found.get("error") or (
            f"{found['tasks']} tasks, {found['skipped']} skipped, {found['ended_twice']} twice, "
            f"{len(found['problems'])} problems, success {found['success']['after']}"
        )
        print(f"{name} {number}: killed {len(found['killed'])} times ({at}); {told}", flush=True)
    good = [run for run in runs if "error" not in run]
    return {
        "runs": runs,
        "undisturbed": {"seconds": seconds, **whole},
        "ended": len(good),
        "kills": sum(len(run["killed"]) for run in runs),
        "skipped": sum(run["skipped"] for run in good),
        "ended_twice": sum(run["ended_twice"] for run in good),
        "unreadable": sum(len(run["unreadable"]) for run in good),
        "problems": sum(len(run["problems"]) for run in good),
        "success": {
            "undisturbed": whole["success"]["after"],
            "killed": sum(run["success"]["after"] or 0.0 for run in good) / max(1, len(good)),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--short", type=int, default=17)
    parser.add_argument("--full", type=int, default=3)
    parser.add_argument("--recipe", default="store")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="leave the run folders here")
    args, options = parser.parse_known_args()
    draw = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        home = args.keep or Path(folder)
        home.mkdir(parents=True, exist_ok=True)
        found = {
            "short": study("short", args.short, args.recipe, [*SHORT, *options], home, draw),
            "full": study("full", args.full, args.recipe, options, home, draw),
        }
    settings = {"recipe": args.recipe, "seed": args.seed, "short_options": SHORT, "options": options}
    versioned = versions("torch", "transformers")
    write(args.json, {**found, "settings": settings, "versions": versioned, "machine": machine()})
    parts = [part for part in found.values() if part]
    bad = any(p["skipped"] or p["ended_twice"] or p["problems"] or p["ended"] < len(p["runs"]) for p in parts)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
