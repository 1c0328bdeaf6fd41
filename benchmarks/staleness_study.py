"""Is a loss as good on stale tokens as on fresh ones?

    python benchmarks/staleness_study.py --json FILE [--seeds 0,1,2] [--losses grpo,decoupled] [--staleness 0,1,4]
                                         [--lags 4] [--recipe store] [--keep DIR] [--trainer.steps=30 ...]

For each seed one warm start, and from it a run for each loss and `rollout.max_staleness`: the same number of steps, and
so of trajectories. Success is that of the sampled evaluation after the last step, none is picked; each run has Wilson's
95% interval, each difference from the first staleness has Student's over the seeds. The age of what was trained is
that which the runs measured: a learner that is slower than play trains on older tokens, a faster one on fresh ones,
whatever is allowed. With --lags 4 there is a run more, `lag 4`, all of whose tokens are made to be 4 versions old.

Losses that are named have their own anchor, not the recipe's (but for --loss.anchor=...).

With --keep, runs that have finished there are read and not run again. The exit status is 1 where the default loss ends
more than 0.03 below under one of the bounds, by the mean over the seeds; lags are told, and not judged.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from held_back import held_back
from report import machine, versions, write
from rich.console import Console
from rich.table import Table

from agentgym.config import load_config
from agentgym.evals.statistics import wilson
from agentgym.report.plain import PlainReporter
from agentgym.report.terminal import mendable
from agentgym.trainers.api import sft, train

WITHIN = 0.03
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Two-sided 95% quantiles of Student's t with 1, 2, ... degrees of freedom."""


class Study:
    """The runs of all seeds, in `folder`."""

    def __init__(self, recipe: str, overrides: Sequence[str], folder: Path, *, named: bool):
        self._recipe, self._overrides, self._folder = recipe, overrides, folder
        self._named = named
        """Whether the runs name their loss: one that is named has its own anchor."""
        self._reporter = PlainReporter(sys.stdout)

    def warm(self, seed: int) -> Path:
        """The model that the seed's runs begin with."""
        folder = self._folder / str(seed) / "warm"
        if not (folder / "summary.json").is_file():
            self._say(seed, "warm start")
            sft(self._config(seed, folder), reporter=self._reporter)
        return folder / "model"

    def run(self, seed: int, loss: str, staleness: int, *, lag: bool = False) -> dict[str, Any]:
        """The figures of one run; lag: all its tokens are to be as old as is allowed."""
        name = f"{loss}-lag-{staleness}" if lag else f"{loss}-{staleness}"
        folder = self._folder / str(seed) / name
        if not (folder / "summary.json").is_file():
            start = [f"model.path={self.warm(seed)}", "sft.steps=0"]
            what = [f"rollout.max_staleness={staleness}", *([f"trainer.loss={loss}"] if self._named else [])]
            self._say(seed, name)
            with held_back(staleness) if lag else nullcontext():
                train(self._config(seed, folder, *start, *what), reporter=self._reporter)
        return figures(folder)

    def _config(self, seed: int, folder: Path, *more: str) -> Any:
        keys = [*self._overrides, f"run.seed={seed}", f"run.dir={folder}", *more]
        return load_config(self._recipe, keys)

    def _say(self, seed: int, what: str) -> None:
        print(f"\n-- seed {seed}: {what}", flush=True)


def figures(folder: Path) -> dict[str, Any]:
    """Of a run that has finished: success before and after, and how old the trained tokens were."""
    summary = json.loads((folder / "summary.json").read_text())
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "eval" not in row]
    after = summary["after"]
    interval = wilson(after["sampled"], after["n"])
    return {
        "before": summary["before"]["sampled"],
        "sampled": after["sampled"],
        "interval": [interval.low, interval.high],
        "greedy": after["greedy"],
        "steps": summary["steps"],
        "trajectories": summary["trajectories"],
        "staleness_mean": statistics.fmean(row["staleness/mean"] for row in steps),
        "staleness_max": max(row["staleness/max"] for row in steps),
        "masked_frac": statistics.fmean(row["masked_frac"] for row in steps),
        "clip_frac": statistics.fmean(row.get("clip_frac") or 0.0 for row in steps),
        "skipped_updates": summary.get("skipped_updates", steps[-1]["skipped_updates"]),
        "rl_cpu_s": summary["rl_cpu_s"],
    }


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Mean, and Student's 95% interval where there are at least two."""
    mean, count = statistics.fmean(values), len(values)
    if count < 2:
        return {"mean": mean, "interval": None}
    quantile = STUDENT[count - 2] if count - 2 < len(STUDENT) else 1.96
    half = quantile * statistics.stdev(values) / math.sqrt(count)
    return {"mean": mean, "interval": [mean - half, mean + half]}


def compared(runs: dict[int, dict[str, dict[str, dict[str, Any]]]]) -> dict[str, dict[str, dict[str, Any]]]:
    """By loss and staleness: success over the seeds, and its difference from the first staleness, seed by seed."""
    first = next(iter(runs.values()))
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for loss, by_staleness in first.items():
        base = next(iter(by_staleness))
        found[loss] = {}
        for staleness in by_staleness:
            mine = [seed[loss][staleness]["sampled"] for seed in runs.values()]
            against = [seed[loss][base]["sampled"] for seed in runs.values()]
            apart = [a - b for a, b in zip(mine, against, strict=True)]
            found[loss][staleness] = {
                "success": over_seeds(mine),
                "difference": over_seeds(apart),
                "staleness_mean": statistics.fmean(seed[loss][staleness]["staleness_mean"] for seed in runs.values()),
                "staleness_max": max(seed[loss][staleness]["staleness_max"] for seed in runs.values()),
            }
    return found


def shown(figure: dict[str, Any]) -> str:
    if figure["interval"] is None:
        return f"{figure['mean']:.3f}"
    return "{:.3f} [{:.3f}, {:.3f}]".format(figure["mean"], *figure["interval"])


def table(found: dict[str, dict[str, dict[str, Any]]]) -> Table:
    made = Table("loss", "max_staleness", "age, mean (max)", "success", "difference", title="over the seeds")
    for loss, by_staleness in found.items():
        for staleness, row in by_staleness.items():
            age = f"{row['staleness_mean']:.2f} ({row['staleness_max']:.0f})"
            made.add_row(loss, staleness, age, shown(row["success"]), shown(row["difference"]))
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="store")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--losses", default="", help="such as grpo,decoupled; the recipe's own where none is named")
    parser.add_argument("--staleness", default="0,1,4", help="the others are compared with the first")
    parser.add_argument("--lags", default="4", help="ages that all tokens are made to have; empty: none")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="leave the run folders here, and go on with what is there")
    args, overrides = parser.parse_known_args()
    default = load_config(args.recipe, overrides).trainer.loss
    losses = args.losses.split(",") if args.losses else [default]
    bounds = [int(text) for text in args.staleness.split(",")]
    lags = [int(text) for text in args.lags.split(",") if text]
    runs: dict[int, dict[str, dict[str, dict[str, Any]]]] = {}
    with tempfile.TemporaryDirectory() as passing:
        study = Study(args.recipe, overrides, args.keep or Path(passing), named=bool(args.losses))
        for seed in (int(text) for text in args.seeds.split(",")):
            runs[seed] = {
                loss: {str(bound): study.run(seed, loss, bound) for bound in bounds}
                | {f"lag {lag}": study.run(seed, loss, lag, lag=True) for lag in lags}
                for loss in losses
            }
    found = compared(runs)
    Console().print(table(found))
    report = {
        "losses": found,
        "default": default,
        "seeds": runs,
        "settings": {"recipe": args.recipe, "overrides": overrides},
        "versions": versions("torch", "transformers"),
        "machine": machine(),
    }
    write(args.json, report)
    judged = [row for name, row in found.get(default, {}).items() if name.isdigit()]
    worst = min((row["difference"]["mean"] for row in judged), default=0.0)
    print(f"the default loss, {default}, ends {worst:+.3f} from where it ends without staleness (at least {-WITHIN})")
    return 1 if worst < -WITHIN else 0


if __name__ == "__main__":
    with mendable():
        sys.exit(main())
