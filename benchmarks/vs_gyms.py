"""Steps a second of one scripted tool episode in our gym and in others.

    python benchmarks/vs_gyms.py --json FILE [--rounds 5] [--episodes 2000] [--folder DIR]

Every gym runs in a virtual environment made for it (kept in `--folder`), in a process of its own, and plays the same
episode: four calls of one calculator and an answer (see `gym_driver.py`). Ours plays through Gymnasium's face, with
arguments checked against the tool's schema and the whole chat in `info`. Gyms take turns within a round, each round
beginning with another one; a ratio is ours over theirs in steps per CPU-second within a round, and the median over the
rounds is reported with its lowest and highest. What cannot be installed here is skipped, and says so.

What the others do in a step is less: skyrl-gym and GEM find a tag in the text by a regular expression and check
nothing. skyrl-gym has no reset, so that an env is made for each episode, as its generator does; that also sends every
call to a pool of threads, unless told otherwise, so that none can block its loop (ours waits where it has to, and
blocks nothing): so is `skyrl-gym` played here. `skyrl-gym-step-alone` is the same env's step without them. Of
verifiers it is the step of its tool env alone, on calls that are parsed already. OpenEnv's env is behind a socket, as
it is meant to be used; its server's CPU counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from report import machine, spread, write

DRIVER = Path(__file__).with_name("gym_driver.py")
PACKAGES = {
    "skyrl-gym": "skyrl-gym==0.4.0",
    "skyrl-gym-step-alone": "skyrl-gym==0.4.0",
    "gem": "gem-llm==0.1.0",
    "verifiers": "verifiers==0.3.1",
    "openenv": "openenv-core==0.3.0",
}
SLOWER = {"openenv": 50}
"""Episodes of these are divided by so much."""
INSTALL_SECONDS = 900


def python_of(name: str, folder: Path) -> Path | str:
    """The interpreter of a gym's own environment, or why there is none."""
    python = folder / name / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / name)], check=True)
    line = [str(python), "-m", "pip", "install", "-q", PACKAGES[name]]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        return f"{PACKAGES[name]} was not installed within {INSTALL_SECONDS} s"
    if done.returncode:
        return f"{PACKAGES[name]} cannot be installed: {(done.stderr.strip().splitlines() or [''])[-1]}"
    return python


def play(python: Path | str, name: str, episodes: int) -> dict[str, float]:
    """One measurement; raises `RuntimeError` with what the driver said."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH" or name == "ours"}
    line = [str(python), str(DRIVER), name, str(episodes)]
    done = subprocess.run(line, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it failed"])[-1])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(rounds: int, episodes: int, folder: Path) -> dict[str, Any]:
    sides: dict[str, Path | str] = {"ours": sys.executable}
    skipped: dict[str, str] = {}
    for name in PACKAGES:
        python = python_of(name, folder)
        if isinstance(python, Path):
            try:
                play(python, name, 2)
            except RuntimeError as e:
                skipped[name] = str(e)
            else:
                sides[name] = python
        else:
            skipped[name] = python
    steps: dict[str, list[float]] = {name: [] for name in sides}
    imports: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            found = play(sides[name], name, max(2, episodes // SLOWER.get(name, 1)))
            steps[name].append(found["steps"] / found["cpu"])
            imports[name].append(found["import_cpu"])
    ratios = {
        name: spread([ours / theirs for ours, theirs in zip(steps["ours"], steps[name], strict=True)])
        for name in names
        if name != "ours"
    }
    return {
        "ratio": {name: figures["median"] for name, figures in ratios.items()},
        "ratio_spread": ratios,
        "steps_per_cpu_s": {name: spread(values) for name, values in steps.items()},
        "import_cpu_s": {name: statistics.median(values) for name, values in imports.items()},
        "skipped": skipped,
        "settings": {"rounds": rounds, "episodes": episodes},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=2000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "agentgym-gyms")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    found = compare(args.rounds, args.episodes, args.folder)
    for name, figures in found["steps_per_cpu_s"].items():
        ratio = found["ratio_spread"].get(name)
        beside = "" if ratio is None else f"   ours {ratio['median']:.2f}x ({ratio['low']:.2f} to {ratio['high']:.2f})"
        print(f"{name:<10} {figures['median']:>10,.0f} steps per CPU-s{beside}")
    for name, why in found["skipped"].items():
        print(f"{name:<10} skipped: {why}")
    write(args.json, found | {"packages": PACKAGES, "machine": machine()})


if __name__ == "__main__":
    main()
