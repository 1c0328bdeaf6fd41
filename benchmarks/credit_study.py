"""Which credit learns more from the same episodes?

    python benchmarks/credit_study.py --json FILE [--seeds 0,1,2] [--tasks two_lookups,shipping]
        [--credits grpo,turn,gigpo,progress] [--keep DIR] [--trainer.steps=30 ...]

For each seed a recipe's warm start is trained once and saved as a model folder; every credit then trains from that
folder, on the same tasks in the same order and on as many trajectories. Three tasks: `two_lookups`, the store's mix of
questions for 90 steps, judged by those that need two lookups, which the warm start has rarely seen (its demonstrations
call a busy tool again more often than the recipe's, 30% of the time: else hardly any episode ever tries that on the
first of two lookups, and no credit can learn it); `two_lookups_alone`, where RL plays no other questions; `shipping`,
parcels (recipe `shipping`).

Success is that of the evaluation after the last step, sampled at temperature 1; none is picked. What is paid for
progress (`turn`) or counts for credit only (`progress`) never decides on success. Said are, by task and credit: the
mean over seeds with a 95% t-interval, each seed's rate with Wilson's interval over its episodes, and the difference
from `grpo` on the same seed with its t-interval. Three seeds make wide intervals; read them as that.

With --keep, runs that have finished there are read and not run again, and one that was cut short goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from report import machine, versions, write
from rich.console import Console
from rich.table import Table
from runs import train_from, warm_start

from agentgym.evals.statistics import wilson
from agentgym.report.terminal import mendable


@dataclass(frozen=True)
class Studied:
    """What is learned, and what of it is judged."""

    recipe: str
    warm: tuple[str, ...] = ()
    """What the warm start changes in the recipe."""
    changes: tuple[str, ...] = ()
    """What RL changes in it."""
    kind: str | None = None
    """The kind of task that success is counted of; else all."""


RETRIES = ("env.demo_args={busy=0.3,demo_retry=0.3}",)
TASKS = {
    "two_lookups": Studied("store", RETRIES, ("trainer.steps=90", "eval.tasks=900"), kind="two_lookups"),
    "two_lookups_alone": Studied("store", RETRIES, ("trainer.steps=90", 'env.args={kinds=["two_lookups"]}')),
    "shipping": Studied("shipping"),
}
CREDITS: dict[str, list[str]] = {
    "grpo": [],
    "rloo": ["trainer.credit=rloo"],
    "turn": ["trainer.credit=turn", "env.rewards={progress=0.5}"],
    "gigpo": ["trainer.credit=gigpo"],
    "progress": ["trainer.credit=progress"],
    "potential": ["trainer.credit=progress", "credit.shaping=potential"],
}
T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Student's t, two-sided, by degrees of freedom."""


def run(task: str, seed: int, credits: Sequence[str], overrides: Sequence[str], folder: Path) -> dict[str, Any]:
    """The figures of each credit, from one warm start."""
    studied = TASKS[task]
    print(f"\n-- {task}, seed {seed}: warm start", flush=True)
    model = warm_start(studied.recipe, seed, folder / "warm", [*_options(studied.warm), *overrides])
    found = {}
    for credit in credits:
        print(f"\n-- {task}, seed {seed}: {credit}", flush=True)
        options = [*_options(studied.changes), *_options(CREDITS[credit]), *overrides]
        summary = train_from(studied.recipe, seed, model, folder / credit, options)
        found[credit] = _figures(summary, studied.kind, folder / credit)
        rows = [json.loads(line) for line in (folder / credit / "metrics.jsonl").read_text().splitlines()]
        success = f"success/{studied.kind}" if studied.kind else "success"
        found[credit]["curve"] = [row.get(success) for row in rows if "eval" not in row]
    return found


def _options(keys: Sequence[str]) -> list[str]:
    return [f"--{key}" for key in keys]


def _figures(summary: dict[str, Any], kind: str | None, folder: Path) -> dict[str, Any]:
    before, after = summary["before"], summary["after"]
    sampled = after["by_kind"][kind] if kind else after["sampled"]
    tasks = _tasks(folder, kind) if kind else after["n"]
    seen = wilson(sampled, tasks)
    return {
        "before": before["by_kind"][kind] if kind else before["sampled"],
        "after": sampled,
        "interval": [seen.low, seen.high],
        "greedy": after["greedy_by_kind"][kind] if kind else after["greedy"],
        "tasks": tasks,
        **{name: summary[name] for name in ("steps", "trajectories", "rl_cpu_s", "unscored")},
    }


def _tasks(folder: Path, kind: str) -> int:
    """How many tasks of a kind were held out."""
    played = map(json.loads, (folder / "trajectories" / "eval-after.jsonl").read_text().splitlines())
    return len({episode["task_id"] for episode in played if episode["kind"] == kind})


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Mean, 95% t-interval (none for a single seed), lowest and highest."""
    mean, count = statistics.fmean(values), len(values)
    interval = None
    if count > 1:
        half = T_95.get(count - 1, 1.96) * statistics.stdev(values) / math.sqrt(count)
        interval = [mean - half, mean + half]
    return {"mean": mean, "interval": interval, "low": min(values), "high": max(values)}


def compared(runs: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """By credit: success after, and less that of `grpo` on the same seed."""
    report = {}
    for credit in next(iter(runs.values())):
        after = [of_seed[credit]["after"] for of_seed in runs.values()]
        report[credit] = {"after": over_seeds(after)}
        if credit != "grpo" and all("grpo" in of_seed for of_seed in runs.values()):
            gains = [of_seed[credit]["after"] - of_seed["grpo"]["after"] for of_seed in runs.values()]
            report[credit]["less_grpo"] = over_seeds(gains)
    return report


def _table(task: str, runs: dict[int, dict[str, Any]], report: dict[str, Any]) -> Table:
    table = Table("credit", "before", "after", "95% over seeds", "by seed", "less grpo", "95%", title=task)
    for credit, figures in report.items():
        own = [of_seed[credit] for of_seed in runs.values()]
        gain = figures.get("less_grpo")
        table.add_row(
            credit,
            f"{statistics.fmean(each['before'] for each in own):.3f}",
            f"{figures['after']['mean']:.3f}",
            _interval(figures["after"]["interval"]),
            " ".join(f"{each['after']:.3f}" for each in own),
            f"{gain['mean']:+.3f}" if gain else "",
            _interval(gain["interval"]) if gain else "",
        )
    return table


def _interval(interval: Sequence[float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def _chosen(text: str, known: Sequence[str], what: str) -> list[str]:
    names = text.split(",")
    if wrong := [name for name in names if name not in known]:
        sys.exit(f"{what} {wrong[0]!r} is unknown; there are {', '.join(known)}")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--tasks", default="two_lookups,shipping")
    parser.add_argument("--credits", default="grpo,turn,gigpo,progress")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="leave the run folders here, and go on with what is there")
    args, overrides = parser.parse_known_args()
    tasks = _chosen(args.tasks, list(TASKS), "task")
    credits = _chosen(args.credits, list(CREDITS), "credit")
    found: dict[str, dict[int, Any]] = {task: {} for task in tasks}
    with tempfile.TemporaryDirectory() as passing:
        for task in tasks:
            for seed in (int(text) for text in args.seeds.split(",")):
                folder = (args.keep or Path(passing)) / task / f"seed-{seed}"
                found[task][seed] = run(task, seed, credits, overrides, folder)
    report = {task: compared(runs) for task, runs in found.items()}
    for task, runs in found.items():
        Console().print(_table(task, runs, report[task]))
        best = max(report[task], key=lambda credit: report[task][credit]["after"]["mean"])
        print(f"best on {task}: {best}, {report[task][best]['after']['mean']:.3f} sampled")
    chosen = {
        "tasks": {task: asdict(TASKS[task]) for task in tasks},
        "credits": {name: CREDITS[name] for name in credits},
    }
    settings = {**chosen, "overrides": overrides}
    versioned = versions("torch", "transformers")
    write(args.json, {**report, "seeds": found, "settings": settings, "versions": versioned, "machine": machine()})


if __name__ == "__main__":
    with mendable():
        main()
