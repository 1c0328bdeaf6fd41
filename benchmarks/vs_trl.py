"""Trajectories per CPU-second of `agentgym train` against TRL's GRPOTrainer, on the same job from the same weights.

    python benchmarks/vs_trl.py --json FILE [--model DIR] [--pairs 3] [--steps 6] [--screen 1]

The job is the `store` recipe: Store-v0, 32 tasks x 8 episodes a step, two AdamW steps a batch of the same constant
rate, temperature 1, at most 10 messages an episode and 32 tokens a message, fp32, one thread a process. The model is
warm-started once by the recipe (or given by --model) and loaded afresh by each side of each pair; the tasks come in
the same order on both sides. First TRL's settings are searched, each change kept where it is faster; then the best of
them plays the pairs, the two sides taking turns to go first. `ratio` is the median of the pairs' ratios.

What is counted is the text COUNTED below. Both sides play a batch with the newest weights and then learn from it:
agentgym is held to that order by rollout.max_staleness=0. Its default overlaps the two, which saves wall time, but
plays one batch more with the first weights, whose episodes are shorter: that would count in its favour. `turn_ratio`
compares assistant messages per CPU-second, for where the sides' episodes still differ in length.
What differs and is not evened out:
- agentgym gives no forward and backward pass to a group whose rewards are all equal (it has no gradient); TRL does.
- TRL recomputes the sampled tokens' logprobs with one more forward pass; agentgym's engine returns them.
- TRL ends an episode at a malformed call, agentgym lets the model try again; play after the warm start has few.
Left out: vLLM (a server for GPUs), torch.compile (compiles anew for most shapes of this job), bf16 (both are fp32).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from report import machine, spread, versions, write

from agentgym.config import recipes

COUNTED = (
    "User and system CPU-seconds of each side's processes and their children while it plays and learns, from the first"
    " of --steps batches to the last. Start-up, imports, loading and evaluation are left out on both sides. TRL: one"
    " process, warmed up by a small training run that is thrown away. agentgym: two processes, rollout worker and"
    " learner, records on disk included; the worker is warmed up by an evaluation of 96 tasks, the learner is not."
)
TRL_DEFAULT = {"micro": 8, "gradient_checkpointing": True}
SEARCH: tuple[dict[str, Any], ...] = (
    {"gradient_checkpointing": False},
    {"micro": 16},
    {"micro": 32},
    {"micro": 128},
    {"attn_implementation": "eager"},
    {"optim": "adamw_torch"},
    {"cache_implementation": "static"},
    {"use_transformers_continuous_batching": True},
)
# TRL has no Muon; a schedule is written for the recipe's own number of steps
JOB = ("learner.optimizer=adamw", "learner.warmup=0", "learner.decay=none")
LARGEST_GAP = {
    "rewards": 0.15,
    "turns": 0.5,
}  # between the sides' means of the first batch: 256 episodes, equal weights
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}
Figures = dict[str, Any]


def run(*command: str) -> float:
    """Run one side to its end; CPU-seconds of the whole process. Exits with its last words where it fails."""
    before = _children_cpu()
    done = subprocess.run([sys.executable, *command], env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True)
    if done.returncode:
        words = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise RuntimeError(f"{' '.join(command)} failed with exit code {done.returncode}:\n{words}")
    return _children_cpu() - before


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def warm_start(recipe: Path, folder: Path) -> str:
    """A model as the recipe's warm start leaves it."""
    run("-m", "agentgym", "train", str(recipe), "--trainer.steps=0", "--eval.tasks=0", "--run.live=off",
        f"--run.dir={folder}")  # fmt: skip
    return str(folder / "model")


def ours(recipe: Path, model: str, folder: Path, seed: int, steps: int) -> Figures:
    options = [*JOB, f"run.seed={seed}", f"trainer.steps={steps}", f"model.path={model}", f"run.dir={folder}"]
    options += ["rollout.max_staleness=0", "sft.steps=0", "eval.tasks=96", "eval.greedy=false", "run.live=off"]
    process = run("-m", "agentgym", "train", str(recipe), *(f"--{option}" for option in options))
    summary = json.loads((folder / "summary.json").read_text())
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    played = [row for row in rows if "reward/mean" in row]
    return {
        "trajectories_per_cpu_s": summary["trajectories"] / summary["rl_cpu_s"],
        "trajectories": summary["trajectories"],
        "cpu_s": summary["rl_cpu_s"],
        "process_cpu_s": process,
        "rewards": [row["reward/mean"] for row in played],
        "turns": [row["num_turns"] for row in played],
        "groups_without_gradient": statistics.mean(row["frac_reward_zero_std"] for row in played),
    }


def trl(recipe: Path, model: str, folder: Path, seed: int, steps: int, setting: Figures) -> Figures:
    script = str(Path(__file__).with_name("trl_store.py"))
    out = folder.with_suffix(".json")
    options = [f"--recipe={recipe}", f"--model={model}", f"--json={out}", f"--steps={steps}"]
    options.append(f"--setting={json.dumps(setting)}")
    process = run(script, *options, *JOB, f"run.seed={seed}")
    return {**json.loads(out.read_text()), "process_cpu_s": process}


def search(recipe: Path, model: str, folder: Path, steps: int) -> tuple[Figures, list[Figures]]:
    """TRL's fastest setting, and every one that was tried."""
    tried: list[Figures] = []
    best, fastest = TRL_DEFAULT, 0.0
    for i, change in enumerate(({}, *SEARCH)):
        setting = {**best, **change}
        try:
            figures = trl(recipe, model, folder / f"setting-{i}", 0, steps, setting)
        except RuntimeError as e:  # a setting that does not work here is no contender
            tried.append({"setting": setting, "error": str(e).splitlines()[-1]})
            print(f"TRL {setting}: {tried[-1]['error']}", flush=True)
            continue
        speed = figures["trajectories_per_cpu_s"]
        tried.append({"setting": setting, **figures})
        print(f"TRL {speed:6.1f} trajectories/CPU-s  {json.dumps(setting)}", flush=True)
        if speed > fastest:
            best, fastest = setting, speed
    return best, tried


def check(pair: dict[str, Figures]) -> Figures:
    """Reward and turns of the first batch, the same tasks played with the same weights; refuses to compare two jobs."""
    start = {}
    for what, largest in LARGEST_GAP.items():
        means = {side: pair[side][what][0] for side in ("ours", "trl")}
        if abs(means["ours"] - means["trl"]) > largest:
            raise RuntimeError(f"the two sides do not play alike from equal weights: first batch's {what} {means}")
        start[what] = means
    return start


def play_pairs(recipe: Path, model: str, folder: Path, args: argparse.Namespace, setting: Figures) -> list[Figures]:
    """The pairs, one after the other, the sides taking turns to go first."""
    pairs = []
    for seed in range(args.pairs):
        sides: dict[str, Callable[[Path], Figures]] = {
            "ours": partial(ours, recipe, model, seed=seed, steps=args.steps),
            "trl": partial(trl, recipe, model, seed=seed, steps=args.steps, setting=setting),
        }
        order = list(sides) if seed % 2 == 0 else list(sides)[::-1]
        pair = {side: sides[side](folder / f"pair-{seed}-{side}") for side in order}
        pairs.append({**pair, "start": check(pair)})
        mine, other = (pair[side]["trajectories_per_cpu_s"] for side in ("ours", "trl"))
        rewards = pairs[-1]["start"]["rewards"]
        print(f"pair {seed}: ours {mine:6.1f}  TRL {other:6.1f}  ratio {mine / other:.2f}  first rewards ", end="")
        print(f"{rewards['ours']:.2f} and {rewards['trl']:.2f}", flush=True)
    return pairs


def report(pairs: Sequence[Figures], setting: Figures, tried: Sequence[Figures]) -> Figures:
    speeds = {side: [pair[side]["trajectories_per_cpu_s"] for pair in pairs] for side in ("ours", "trl")}
    ratios = [mine / other for mine, other in zip(speeds["ours"], speeds["trl"], strict=True)]
    return {
        "unit": "trajectories per CPU-second",
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "turn_ratio": statistics.median(
            ratio * statistics.mean(pair["ours"]["turns"]) / statistics.mean(pair["trl"]["turns"])
            for ratio, pair in zip(ratios, pairs, strict=True)
        ),
        "spread": {"ratio": spread(ratios), **{side: spread(values) for side, values in speeds.items()}},
        **{side: statistics.median(values) for side, values in speeds.items()},
        "trl_setting": setting,
        "counted": COUNTED,
        "pairs": list(pairs),
        "settings_tried": list(tried),
        "versions": versions("agentgym-train", "trl", "torch", "transformers", "accelerate", "datasets"),
        "machine": machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", default="", help="a warm-started tiny model's folder; default: one is made")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="counted batches of 256 episodes, each side of each pair")
    parser.add_argument("--screen", type=int, default=1, help="counted batches of each of TRL's settings")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            # a copy, so that every process of this run reads the same recipe
            recipe = Path(shutil.copy(recipes()["store"], folder / "store.toml"))
            model = args.model or warm_start(recipe, folder / "warm")
            setting, tried = search(recipe, model, folder, args.screen)
            result = report(play_pairs(recipe, model, folder, args, setting), setting, tried)
            result["job"] = {"recipe": tomllib.loads(recipe.read_text()), "overrides": JOB}
        except RuntimeError as e:
            sys.exit(f"vs_trl: {e}")
    low, high = result["spread"]["ratio"]["low"], result["spread"]["ratio"]["high"]
    print(f"ours {result['ours']:.1f}, TRL {result['trl']:.1f} trajectories/CPU-s: ", end="")
    print(f"ratio {result['ratio']:.2f} ({low:.2f} to {high:.2f}), of turns {result['turn_ratio']:.2f}")
    write(args.json, {**result, "settings": {"pairs": args.pairs, "steps": args.steps, "screen": args.screen}})


if __name__ == "__main__":
    main()
