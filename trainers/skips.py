"""Optimizer steps that are left out, for a loss or a gradient that is not finite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agentgym.errors import RunError
from agentgym.run_folder import RunFolder
from agentgym.trainers.batch import Row
from agentgym.types import Floats

FILE = "skipped.jsonl"


@dataclass(slots=True)
class Skips:
    """How many steps were left out, how many of the last in a row, and the rows to blame since they were last taken."""

    total: int = 0
    in_a_row: int = 0
    rows: list[Row] = field(default_factory=list)

    def stepped(self) -> None:
        self.in_a_row = 0

    def left_out(self, rows: Sequence[Row]) -> None:
        self.total += 1
        self.in_a_row += 1
        self.rows += rows


@dataclass(frozen=True, slots=True)
class SkipGuard:
    """Writes the rows of steps that were left out into the run folder, and stops a run that has `most` in a row."""

    folder: RunFolder
    most: int

    def check(self, skips: Skips, step: int) -> None:
        """After training step `step`. Raises `RunError` naming the file.

        A line of it is a row {step, trajectory, ids, mask, logprobs, advantages, versions}; numbers that are not finite
        are written as text ("nan", "inf"). The trajectory itself is in trajectories/step-NNNNN.jsonl.
        """
        rows, skips.rows = skips.rows, []
        for row in rows:
            self.folder.append(FILE, _plain(row, step))
        if skips.in_a_row >= self.most:
            who = sorted({row.source for row in rows if row.source})
            named = f" ({', '.join(who[:3])}{', ...' if len(who) > 3 else ''})" if who else ""
            raise RunError(
                f"the last {skips.in_a_row} optimizer steps were left out, as their loss or gradient was not finite "
                f"(learner.max_skipped = {self.most}). The rows to blame{named} are in {self.folder.path / FILE}: look "
                "for advantages or logprobs that are no numbers; if there are none, lower learner.lr"
            )


def _plain(row: Row, step: int) -> dict[str, Any]:
    return {
        "step": step,
        "trajectory": row.source,
        "ids": row.ids.tolist(),
        "mask": row.mask.tolist(),
        "logprobs": _numbers(row.logprobs),
        "advantages": _numbers(row.advantages),
        "versions": row.versions.tolist(),
    }


def _numbers(values: Floats) -> list[float | str]:
    return [value if math.isfinite(value) else str(value) for value in values.tolist()]
