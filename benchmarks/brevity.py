"""Does being paid for brevity save tokens, and what does it cost?

    python benchmarks/brevity.py --json FILE [--recipe store-brief] [--seeds 0,1] [--keep DIR] [--trainer.steps=40 ...]

For each seed one warm start, and from it two runs that differ in one setting: with the recipe's weight of the grader
`efficiency`, and with 0. Options go to both. Sampled tokens a success are those of all held-out episodes, the failed
ones too, over the successes; a play too long that fails is not cheap.

ratio: tokens a success, unpaid against paid, median over the seeds; apart: by how much success differs, paid less
unpaid, the largest difference of any seed (its sign kept).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from report import machine, spread, versions, write
from runs import train_from, warm_start

SIDES: dict[str, Sequence[str]] = {"paid": (), "unpaid": ("--env.rewards.efficiency=0",)}
FIGURES = ("sampled", "greedy", "tokens_per_success", "n")


def figures(summary: dict[str, Any]) -> dict[str, Any]:
    """Before and after RL: success, and what a success cost."""
    return {when: {name: summary[when].get(name) for name in FIGURES} for when in ("before", "after")}


def one_seed(recipe: str, seed: int, folder: Path, options: Sequence[str]) -> dict[str, Any]:
    model = warm_start(recipe, seed, folder / "warm", options)
    found: dict[str, Any] = {
        side: figures(train_from(recipe, seed, model, folder / side, [*options, *changes]))
        for side, changes in SIDES.items()
    }
    paid, unpaid = (found[side]["after"] for side in SIDES)
    found["ratio"] = unpaid["tokens_per_success"] / paid["tokens_per_success"]
    found["apart"] = paid["sampled"] - unpaid["sampled"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--recipe", default="store-brief")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="leave the run folders here")
    args, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = args.keep or Path(temporary)
        seeds = {
            text: one_seed(args.recipe, int(text), home / f"seed-{text}", options) for text in args.seeds.split(",")
        }
    report: dict[str, Any] = {
        "ratio": spread([found["ratio"] for found in seeds.values()]),
        "apart": max((found["apart"] for found in seeds.values()), key=abs),
        "seeds": seeds,
    }
    for seed, found in seeds.items():
        ends = {"before": found["paid"]["before"], **{side: found[side]["after"] for side in SIDES}}
        cost = ", ".join(f"{name} {end['tokens_per_success']:.1f} ({end['sampled']:.3f})" for name, end in ends.items())
        print(f"seed {seed}: tokens a success (success) {cost}: {found['ratio']:.2f}x")
    settings = {"recipe": args.recipe, "options": options}
    write(args.json, report | {"settings": settings, "versions": versions("torch"), "machine": machine()})


if __name__ == "__main__":
    main()
