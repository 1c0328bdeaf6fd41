"""Does RL learn from its rewards, and is it worth more than imitating its own successes?

    python benchmarks/controls.py --json FILE [--seeds 0] [--recipe store] [--trainer.steps=30 ...]

From one warm-started model, three runs on the same tasks: RL; RL whose rewards are dealt anew within each group, which
must stay where it began; and rejection-sampling fine-tuning (supervised steps on the best-paid episodes of each group,
played anew at every step), which gets as many CPU-seconds as RL used. Success is that of the sampled evaluation.
`shuffled_drift` is the largest |after - before| of the shuffled runs; the exit status is 1 where it passes 0.05 or RL
does not beat the shuffled run.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from report import machine, versions, write
from rich.console import Console
from rich.table import Table

from agentgym.config import load_config
from agentgym.report.plain import PlainReporter
from agentgym.report.terminal import mendable
from agentgym.trainers.api import sft, train

DRIFT = 0.05
MANY = 100_000
"""Steps of the run that is ended by its CPU-seconds."""
PARTS = ("sampled", "greedy")


def study(seed: int, args: argparse.Namespace, overrides: Sequence[str], folder: Path) -> dict[str, Any]:
    """The three runs of one seed: their evaluations before and after, and what each used."""

    def config(name: str, *more: str) -> Any:
        keys = [*overrides, f"run.seed={seed}", f"run.dir={folder / name}", *more]
        return load_config(args.recipe, keys)

    def run(name: str, *more: str) -> dict[str, Any]:
        print(f"\n-- seed {seed}: {name}", flush=True)
        return train(config(name, f"model.path={folder / 'warm' / 'model'}", "sft.steps=0", *more), reporter=reporter)

    reporter = PlainReporter(sys.stdout)
    print(f"\n-- seed {seed}: warm start", flush=True)
    sft(config("warm"), reporter=reporter)
    rl = run("rl")
    shuffled = run("shuffled", "trainer.control=shuffle_rewards")
    budget = [f"trainer.max_cpu_seconds={rl['rl_cpu_s']}", f"trainer.steps={MANY}"]
    rft = run("rejection", "trainer.control=rejection_sampling", "learner.kl=0", *budget)
    return {name: _figures(s) for name, s in (("rl", rl), ("shuffled", shuffled), ("rejection_sampling", rft))}


def _figures(summary: dict[str, Any]) -> dict[str, Any]:
    names = (*PARTS, "by_kind", "by_tag")
    kept = {when: {name: summary[when].get(name) for name in names} for when in ("before", "after")}
    return {**kept, **{name: summary[name] for name in ("steps", "trajectories", "rl_cpu_s")}}


def _table(seed: int, runs: dict[str, dict[str, Any]]) -> Table:
    table = Table("run", "before", "after, sampled", "after, greedy", "steps", "RL CPU-s", title=f"seed {seed}")
    for name, figures in runs.items():
        rates = [figures["before"]["sampled"], *(figures["after"][part] for part in PARTS)]
        shown = ["-" if rate is None else f"{rate:.3f}" for rate in rates]
        table.add_row(name, *shown, str(figures["steps"]), f"{figures['rl_cpu_s']:.0f}")
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="store")
    parser.add_argument("--seeds", default="0", help="such as 0,1,2")
    parser.add_argument("--json", type=Path)
    args, overrides = parser.parse_known_args()
    seeds = [int(seed) for seed in args.seeds.split(",")]
    found: dict[int, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            found[seed] = study(seed, args, overrides, Path(folder) / str(seed))
    for seed, runs in found.items():
        Console().print(_table(seed, runs))
    after = {name: [runs[name]["after"]["sampled"] for runs in found.values()] for name in found[seeds[0]]}
    drift = max(abs(r["shuffled"]["after"]["sampled"] - r["shuffled"]["before"]["sampled"]) for r in found.values())
    report = {
        "shuffled_drift": drift,
        "after": {name: statistics.median(values) for name, values in after.items()},
        "seeds": found,
        "settings": {"recipe": args.recipe, "overrides": overrides},
        "versions": versions("torch", "transformers"),
        "machine": machine(),
    }
    write(args.json, report)
    beaten = all(rl > other for rl, other in zip(after["rl"], after["shuffled"], strict=True))
    gain = report["after"]["rl"] - report["after"]["rejection_sampling"]
    print(f"shuffled rewards drift by {drift:.3f} (at most {DRIFT}); RL is {'' if beaten else 'NOT '}ahead of them")
    print(f"RL against rejection sampling in the same CPU-seconds: {gain:+.3f}")
    return 0 if drift <= DRIFT and beaten else 1


if __name__ == "__main__":
    with mendable():
        sys.exit(main())
