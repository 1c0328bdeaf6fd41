"""Settings of tiny runs, and what their folders say."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agentgym.report.plain import PlainReporter
from agentgym.rollout.record import read_trajectories
from agentgym.trainers import origin, session
from agentgym.types import Trajectory

SMALL: dict[str, Any] = {
    "run": {"live": "off", "processes": 1},
    "model": {"layers": 1, "width": 32, "heads": 2},
    "sft": {"steps": 3, "examples": 32, "batch_size": 8},
    "trainer": {"steps": 4, "checkpoint_every": 2},
    "rollout": {"groups": 2, "group_size": 4, "max_tokens": 12},
    "eval": {"tasks": 6},
}


STEADY: dict[str, Any] = {
    **SMALL,
    "rollout": {**SMALL["rollout"], "max_staleness": 0},
    "trainer": {"steps": 3, "checkpoint_every": 2},
    "learner": {"kl": 0.1},
}
"""In one process and without staleness, a run is a function of its seed."""


class Stopper(PlainReporter):
    """Asks the run to stop, as Ctrl-C does, when `stage` has come to `done`; keeps what it was told."""

    def __init__(self, stage: str = "", done: int = 0):
        super().__init__()
        self.want, self.notes, self.at = (stage, done), [], ""

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        self.at = name

    def advance(self, done: int, **fields: float | str) -> None:
        if (self.at, done) == self.want:
            os.kill(os.getpid(), signal.SIGINT)

    def note(self, text: str) -> None:
        self.notes.append(text)


def rows(run: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


def stored(run: Path) -> list[Trajectory]:
    """What was played."""
    return [t for file in sorted((run / "trajectories").glob("*.jsonl")) for t in read_trajectories(file)]


def comparable(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics without what depends on time."""
    timed = ("time/", "worker/", "overhead", "compute", "peak_mem", "rl_cpu_s", "rl_wall_s")
    return [{k: v for k, v in row.items() if not k.startswith(timed)} for row in rows(folder, "metrics.jsonl")]


def weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


@contextmanager
def quick_runs() -> Iterator[None]:
    """Without what takes most of so small a run: the tasks that a tokenizer is to know the words of, and the curve."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(origin, "SEEN_TASKS", 32)
        patch.setattr(session, "draw_curve", lambda folder: None)
        yield
