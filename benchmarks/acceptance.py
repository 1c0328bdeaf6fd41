"""The mission in one run: train by `acceptance.toml`, check the run, evaluate the model in two sandboxes.

    python benchmarks/acceptance.py --json FILE [--seeds 0,1] [--keep DIR] [--backends local,docker] [--image NAME]
                                    [--tasks 200] [--rise 0.3] [--trainer.steps=4 ...]

Each seed: `agentgym train`, `agentgym check-run`, `agentgym eval` of the saved model with the sandbox of each backend.
It ends with 1 where success rises by less than `--rise` on held-out tasks, where the check finds something, or where
two sandboxes come to other verdicts. `docker` needs an engine and an image with Python: `make acceptance` brings both.
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

from report import machine, versions, write

CONFIG = Path(__file__).with_suffix(".toml")
ENV = "agentgym/PythonMath-v0"


def agentgym(*arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", "agentgym", *arguments]).returncode


def train(seed: int, overrides: Sequence[str], folder: Path) -> dict[str, Any]:
    """The summary of one run."""
    told = ["train", str(CONFIG), f"--run.seed={seed}", f"--run.dir={folder}", "--run.live=off", *overrides]
    if code := agentgym(*told):
        sys.exit(code)  # the run has said why
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def verdicts(model: Path, backend: str, image: str, tasks: int, out: Path) -> dict[str, str]:
    """How each held-out episode ended, by its id, with the code run in that backend's sandbox."""
    told = ["eval", str(model), "--env", ENV, "--tasks", str(tasks), "--out", str(out), "--engine.max_context=256"]
    told += ["--rollout.max_tokens=48", f"--sandbox.backend={backend}"]
    if backend == "docker":
        told.append(f"--sandbox.image={image}")
    if code := agentgym(*told):
        sys.exit(code)
    rows = [json.loads(line) for line in (out / "episodes.jsonl").read_text().splitlines()]
    return {f"{row['task_id']}/{row['sample']}": f"{row['outcome']} {row['reward']}" for row in rows}


def one_seed(seed: int, args: argparse.Namespace, overrides: Sequence[str], folder: Path) -> dict[str, Any]:
    run = folder / f"seed-{seed}"
    summary = train(seed, overrides, run)
    rise = summary["after"]["sampled"] - summary["before"]["sampled"]
    found = {
        name: verdicts(run / "model", name, args.image, args.tasks, folder / f"eval-{name}-{seed}")
        for name in args.backends.split(",")
    }
    first, *others = found.values()
    right = {name: sum(end.startswith("correct") for end in ends.values()) for name, ends in found.items()}
    return {
        "summary": summary,
        "rise": rise,
        "check_run": agentgym("check-run", str(run)),
        "evaluated": len(first),
        "success": {name: count / len(first) for name, count in right.items()},
        "other_verdicts": sum(first.get(each) != other.get(each) for other in others for each in {*first, *other}),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--backends", default="local,docker")
    parser.add_argument("--image", default="agentgym-test:latest")
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--rise", type=float, default=0.3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="leave the run folders here")
    args, overrides = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as made:
        folder = args.keep or Path(made)
        seeds = {seed: one_seed(int(seed), args, overrides, folder) for seed in args.seeds.split(",")}
    settings = {"config": CONFIG.read_text(), "overrides": overrides, "tasks": args.tasks, "rise": args.rise}
    report = {"seeds": seeds, "settings": settings, "versions": versions("torch", "transformers", "ray")}
    write(args.json, report | {"machine": machine()})
    wrong = 0
    for seed, found in seeds.items():
        before, after = (found["summary"][when]["sampled"] for when in ("before", "after"))
        told = ", ".join(f"{name} {rate:.3f}" for name, rate in found["success"].items())
        print(
            f"seed {seed}: {before:.3f} -> {after:.3f}; evaluated in {told}; other verdicts {found['other_verdicts']}"
        )
        wrong += found["rise"] < args.rise or found["check_run"] != 0 or found["other_verdicts"] != 0
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
