"""What does it bring that agents play while the learner learns?

    python benchmarks/async_vs_sync.py --json FILE [--recipe store] [--rounds 3] [--seed 0] [--keep DIR]
        [--trainer.steps=70 ...]

The recipe's warm start is done once. From its model both sides run the recipe's whole RL phase, as many trajectories
each: with the recipe's `rollout.max_staleness`, and with 0, where play waits for the learner and the learner for play.
Rounds alternate which side goes first, and both sides of a round have the same seed. Options go to all runs. Nothing
else may run on the machine meanwhile: the ratio is one of wall clocks.

wall_ratio, cpu_ratio: synchronous against asynchronous, seconds of the RL phase alone (above 1: asynchronous is faster,
or costs less), as the median over the rounds of the ratio of each; success: after the last step, on held-out tasks.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from report import machine, spread, versions, write
from runs import train_from, warm_start

SIDES = ("asynchronous", "synchronous")


def run(recipe: str, side: str, seed: int, model: Path, folder: Path, options: Sequence[str]) -> dict[str, Any]:
    """One RL phase, and what its folder says of it."""
    bound = ["--rollout.max_staleness=0"] if side == "synchronous" else []
    summary = train_from(recipe, seed, model, folder, [*options, *bound])
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "reward/mean" in row]
    return {
        "wall_s": sum(wall(row) for row in steps),
        "cpu_s": summary["rl_cpu_s"],
        "wait_s": sum(row["time/wait_batch"] for row in steps),
        "trajectories": summary["trajectories"],
        "tokens": summary["tokens_sampled"],
        "staleness": statistics.mean(row["staleness/mean"] for row in steps),
        "masked": statistics.mean(row["masked_frac"] for row in steps),
        "before": summary["before"].get("sampled"),
        "after": summary["after"].get("sampled"),
        "greedy": summary["after"].get("greedy"),
        "steps": summary["steps"],
    }


def wall(row: dict[str, Any]) -> float:
    """Seconds of a step: all its parts, one after the other in the driver."""
    return float(sum(value for name, value in row.items() if name.startswith("time/")))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--recipe", default="store")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="leave the run folders here")
    args, options = parser.parse_known_args()
    rounds: list[dict[str, dict[str, Any]]] = []
    with tempfile.TemporaryDirectory() as temporary:
        home = args.keep or Path(temporary)
        home.mkdir(parents=True, exist_ok=True)
        model = warm_start(args.recipe, args.seed, home / "warm", options)
        for number in range(args.rounds):
            order = SIDES if number % 2 == 0 else SIDES[::-1]
            seed = args.seed + number
            rounds.append(
                {side: run(args.recipe, side, seed, model, home / f"{side}-{number}", options) for side in order}
            )
            told = {side: rounds[-1][side] for side in SIDES}
            print("  ".join(f"{s}: {f['wall_s']:.1f} s, success {f['after']}" for s, f in told.items()), flush=True)
    report: dict[str, Any] = {
        name: spread([each["synchronous"][key] / each["asynchronous"][key] for each in rounds])
        for name, key in (("wall_ratio", "wall_s"), ("cpu_ratio", "cpu_s"))
    }
    for side in SIDES:
        found = [each[side] for each in rounds]
        report[side] = {name: spread([row[name] for row in found if row[name] is not None]) for name in found[0]}
    equal = all(each["asynchronous"]["trajectories"] == each["synchronous"]["trajectories"] for each in rounds)
    report |= {"equal_trajectories": equal, "rounds": rounds}
    print(f"wall ratio {report['wall_ratio']['median']:.2f}, CPU ratio {report['cpu_ratio']['median']:.2f}")
    settings = {"recipe": args.recipe, "seed": args.seed, "rounds": args.rounds, "options": options}
    write(
        args.json,
        report | {"settings": settings, "versions": versions("torch", "transformers"), "machine": machine()},
    )


if __name__ == "__main__":
    main()
