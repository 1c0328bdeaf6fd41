"""The default run under several seeds, nothing else changed.

    python benchmarks/seeds.py --json FILE [--seeds 0,1,2] [--recipe store] [--keep DIR] [--trainer.steps=30 ...]

Each seed is a whole `agentgym train` in a process of its own; the figures are those of its summary.json, as median,
lowest and highest over the seeds. The evaluation is the one after the last step: none is picked.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from report import machine, spread, versions, write

FIGURES = ("sampled", "greedy", "after_busy")
COSTS = ("cpu_s", "wall_s", "trajectories_per_cpu_s", "logprob_gap_max", "unscored")


def run(recipe: str, seed: int, overrides: Sequence[str], folder: Path) -> dict[str, Any]:
    line = [sys.executable, "-m", "agentgym", "train", recipe, f"--run.seed={seed}", f"--run.dir={folder}", *overrides]
    if code := subprocess.run([*line, "--run.live=off"]).returncode:
        sys.exit(code)  # the run has said why
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def rates(summary: dict[str, Any], when: str) -> dict[str, float]:
    """Success of an evaluation by name, kinds included."""
    found = {name: summary[when].get(name) for name in FIGURES} | summary[when]["by_kind"]
    return {name: rate for name, rate in found.items() if rate is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="store")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="leave the run folders here")
    args, overrides = parser.parse_known_args()
    summaries = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in (int(text) for text in args.seeds.split(",")):
            summaries[seed] = run(args.recipe, seed, overrides, (args.keep or Path(folder)) / f"seed-{seed}")
    report: dict[str, Any] = {}
    for when in ("before", "after"):
        found = [rates(summary, when) for summary in summaries.values()]
        report[when] = {name: spread([each[name] for each in found]) for name in found[0]}
    report |= {name: spread([summary[name] for summary in summaries.values()]) for name in COSTS}
    for name, figures in [(f"{when}: {k}", v) for when in ("before", "after") for k, v in report[when].items()]:
        print(f"{name:<24} median {figures['median']:.3f}, {figures['low']:.3f} to {figures['high']:.3f}")
    for name in COSTS:
        figures = report[name]
        print(f"{name:<24} median {figures['median']:.4g}, {figures['low']:.4g} to {figures['high']:.4g}")
    settings = {"recipe": args.recipe, "overrides": overrides}
    versioned = versions("torch", "transformers")
    write(args.json, report | {"seeds": summaries, "settings": settings, "versions": versioned, "machine": machine()})


if __name__ == "__main__":
    main()
