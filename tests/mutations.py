"""Plants faults one by one and runs the tests that should find them: `make mutations`.

    python tests/mutations.py [--only WORD]

A fault is a text of a file and what takes its place. The tests run on a copy of the tree, so nothing here is touched.
It ends with 1 where a fault lives, and where a text is no longer in its file.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("agentgym", "envs", "tools", "sandboxes", "trainers", "tests", "docs", "examples", "benchmarks")


@dataclass(frozen=True, slots=True)
class Fault:
    """`old` stands once in `file`; with `new` in its place one of `tests` has to fail."""

    file: str
    old: str
    new: str
    tests: str


CREDIT, LOSSES, PARSERS = "tests/trainers/credit", "tests/trainers/test_losses.py", "tests/rollout/parsers"
ROUTING, TRL = "tests/trainers/test_routing_replay.py", "tests/trainers/test_trl_formulas.py"
INFINITE = "tests/trainers/test_infinite_ratios.py"
OBJECTIVE, PREPARATION = "tests/trainers/test_objective.py", "tests/trainers/test_preparation.py"
FAULTS = (
    Fault("trainers/credit/groups.py", "values - values.mean()", "values", CREDIT),
    Fault("trainers/credit/groups.py", "(values.std() + eps)", "(values.var() + eps)", CREDIT),
    Fault("trainers/credit/groups.py", "if trajectory.reward is not None:", "if True:", CREDIT),
    Fault("trainers/credit/groups.py", "/ (len(members) - 1)", "/ len(members)", CREDIT),
    Fault("trainers/credit/groups.py", "rewards[t] + discount * ahead", "rewards[t] + ahead", CREDIT),
    Fault("trainers/credit/rloo.py", "max(1, len(members) - 1)", "len(members)", CREDIT),
    Fault("trainers/credit/gigpo.py", "step_weight * step", "step", CREDIT),
    Fault("trainers/credit/gigpo.py", "returns[i][t] for", "returns[i][0] for", CREDIT),
    Fault("trainers/losses/clipped.py", "(advantages > 0) & (ratio > bound)", "(advantages > 0)", LOSSES),
    Fault("trainers/losses/clipped.py", "clamp(1 - low", "clamp(1 - high", LOSSES),
    Fault("trainers/losses/clipped.py", "beyond = worse & ", "beyond = ", LOSSES),
    Fault("trainers/losses/clipped.py", "stopped | (advantages == 0)", "stopped", INFINITE),
    Fault("trainers/losses/grpo.py", "tokens.advantages * tokens.mask", "tokens.advantages", LOSSES),
    Fault("trainers/losses/sequence_ppo.py", "mean=False).detach()", "mean=True).detach()", LOSSES),
    Fault("trainers/losses/sequence_ppo.py", "1 + length *", "1 + ", TRL),
    Fault("trainers/credit/grpo.py", "1.0 / (float(np.std(rewards)) + eps)", "1.0", TRL),
    Fault("trainers/credit/whiten.py", "a - mean", "a", TRL),
    Fault("trainers/losses/kl.py", "0.5 * apart", "apart", LOSSES),
    Fault("trainers/losses/kl.py", "ratio.detach() if", "ratio if", LOSSES),
    Fault("trainers/losses/gspo.py", "mean=True", "mean=False", LOSSES),
    Fault("trainers/losses/cispo.py", "ratio.clamp(low, high)", "ratio", LOSSES),
    Fault("trainers/losses/sapo.py", " * 4 / tau", "", LOSSES),
    Fault("trainers/losses/dppo.py", "outward & (apart > delta)", "apart > delta", LOSSES),
    Fault("trainers/losses/correction.py", "losses * weight", "losses", LOSSES),
    Fault("trainers/losses/proximal.py", "along = age / (age + done)", "along = age / (age + 1)", LOSSES),
    Fault("trainers/losses/aggregate.py", "row.trained > 0 for", "1 for", OBJECTIVE),
    Fault("trainers/objective.py", "losses - aim.entropy", "losses + aim.entropy", OBJECTIVE),
    Fault("trainers/preparation.py", "penalties[t] + discount * ahead", "penalties[t]", PREPARATION),
    Fault("trainers/preparation.py", "gap > largest", "gap >= largest", PREPARATION),
    Fault("trainers/routing.py", "found[end - 1 - len(experts) : end - 1]", "found[end - len(experts) : end]", ROUTING),
    Fault("trainers/routing.py", "-1, each.astype(np.int16)", "0, each.astype(np.int16)", ROUTING),
    Fault("agentgym/rollout/routing.py", "return length - 1", "return length", "tests/rollout/test_routing.py"),
    Fault("agentgym/types.py", "experts[: max(0, len(experts) - dropped)]", "experts", ROUTING),
    Fault("agentgym/engines/routing.py", "scores.gather(-1, index), index", "own.values, index", ROUTING),
    Fault("trainers/skips.py", "self.in_a_row = 0", "pass", "tests/trainers/test_skips.py"),
    Fault("trainers/batch.py", "<= max_staleness)", "<= max_staleness + 1)", "tests/trainers/test_batch.py"),
    Fault("trainers/batch.py", "done.versions != GIVEN", "1.0", "tests/rollout/test_thinking.py"),
    Fault("trainers/batch.py", "if turn.id not in trained:", "if True:", "tests/trainers/test_batch.py"),
    Fault("agentgym/rollout/parsers/base.py", "end + len(closing)", "end", PARSERS),
    Fault(
        "agentgym/rollout/parsers/base.py", "max(self.read(scan, start), start + 1)", "self.read(scan, start)", PARSERS
    ),
    Fault("agentgym/rollout/parsers/hermes.py", "scan.skip(start)", "start", PARSERS),
    Fault(
        "agentgym/rollout/parsers/harmony.py",
        "and not scan.calls:\n                said",
        ":\n                said",
        PARSERS,
    ),
)


def lives(fault: Fault, tree: Path) -> str:
    """What is wrong: the fault was not found, or cannot be planted. Empty where the tests found it."""
    path = tree / fault.file
    text = path.read_text()
    if text.count(fault.old) != 1:
        return f"{text.count(fault.old)} times in the file: {fault.old!r}"
    path.write_text(text.replace(fault.old, fault.new))
    try:
        line = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *fault.tests.split()]
        done = subprocess.run([*line, "-m", "not slow"], cwd=tree, capture_output=True, text=True, timeout=900)
    finally:
        path.write_text(text)
    if done.returncode == 1:
        return ""
    return "no test found it" if done.returncode == 0 else f"pytest ended with {done.returncode}: {done.stdout[-300:]}"


def copied(tree: Path) -> Path:
    """The tree with its links, so that `agentgym` is imported from there."""
    for name in (*FOLDERS, "pyproject.toml", "README.md", "CHANGELOG.md", "Makefile"):
        here = ROOT / name
        if here.is_dir():
            shutil.copytree(here, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(here, tree / name)
    return tree


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="faults whose file has this in its name")
    args = parser.parse_args()
    chosen = [fault for fault in FAULTS if args.only in fault.file]
    alive = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = copied(Path(folder))
        for fault in chosen:
            wrong = lives(fault, tree)
            alive += bool(wrong)
            print(f"{'LIVES ' if wrong else 'found '} {fault.file}: {fault.old!r} -> {fault.new!r} {wrong}", flush=True)
    print(f"{len(chosen) - alive} of {len(chosen)} planted faults were found")
    return 1 if alive or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
