"""What studies ask of `agentgym`, as a user would: each command in a process of its own.

What a folder that is kept has already is not done again, so that a study which was cut short goes on.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def command(*arguments: str) -> None:
    """Run one command; where it fails this process ends as it did, for the command has said why."""
    if code := subprocess.run([sys.executable, "-m", "agentgym", *arguments]).returncode:
        sys.exit(code)


def _ended(name: str, folder: Path, *arguments: str) -> None:
    """Let the run of `folder` come to its end: one that was cut short goes on."""
    if (folder / "summary.json").is_file():
        return
    if (folder / "config.toml").is_file():
        command("train", "--resume", str(folder))
    else:
        command(name, *arguments, f"--run.dir={folder}", "--run.live=off")


def warm_start(recipe: str, seed: int, folder: Path, options: Sequence[str] = ()) -> Path:
    """The model of a recipe's warm start, which several runs can then begin with; one that is there is taken."""
    _ended("sft", folder, recipe, f"--run.seed={seed}", *options)
    return folder / "model"


def train_from(recipe: str, seed: int, model: Path, folder: Path, options: Sequence[str] = ()) -> dict[str, Any]:
    """A recipe's RL from a warm start: the summary of the run; one that has ended is taken as it is."""
    _ended("train", folder, recipe, f"--model.path={model}", "--sft.steps=0", f"--run.seed={seed}", *options)
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary
