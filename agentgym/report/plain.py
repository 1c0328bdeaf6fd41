"""Progress as plain lines, for pipes and logs: a line where a stage begins and ends, and now and then one between."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, TextIO

from agentgym.report.progress import Progress, Stage, duration, figure, flat
from agentgym.types import Trajectory

SECONDS = 5.0
"""Between two lines of progress."""


class PlainReporter:
    """A `Reporter` of lines; `out` is stdout unless given."""

    def __init__(self, out: TextIO | None = None, clock: Callable[[], float] = monotonic):
        self._out: TextIO | None = out or sys.stdout
        self._progress = Progress(clock)
        self._spoke = 0.0

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        self._ended(self._progress.begin(name, total, unit))
        self._say(f"{name}: {total:,} {unit}".rstrip() if total else name)

    def advance(self, done: int, **fields: float | str) -> None:
        self._progress.advance(done, fields)
        stage = self._progress.current
        if stage and self._progress.now() - self._spoke >= SECONDS and done != stage.total:
            self._say(self._line(stage))

    def metrics(self, row: Mapping[str, Any], step: int) -> None:
        self._progress.metrics(row, step)

    def episode(self, trajectory: Trajectory) -> None:
        """Episodes are shown by the live view only; the run folder has them all."""

    def note(self, text: str) -> None:
        self._say(f"  {text}")

    def result(self, title: str, rows: Mapping[str, Any]) -> None:
        self._ended(self._progress.end())
        found = flat(rows)
        width = max((len(name) for name in found), default=0)
        self._print("\n".join([title, *(f"  {name:<{width}}  {figure(value)}" for name, value in found.items())]))

    def close(self) -> None:
        self._ended(self._progress.end())

    def _ended(self, stage: Stage | None) -> None:
        if stage is not None and (stage.fields or stage.done):
            self._say(f"{self._line(stage)} · took {duration(stage.seconds(self._progress.now()))}")

    def _line(self, stage: Stage) -> str:
        total = f"/{stage.total:,}" if stage.total else ""
        parts = [f"{stage.name} {stage.done:,}{total} {stage.unit}".rstrip()]
        parts += [f"{name} {figure(value)}" for name, value in stage.fields.items()]
        if self._progress.pace is not None and stage.unit == "steps" and self._progress.row:
            parts += [f"{name} {rate:.2f}" for name, rate in self._progress.by_kind().items()]
            parts.append(f"{self._progress.pace:.0f} trajectories/s")
        eta = stage.eta(self._progress.now())
        if eta:
            parts.append(f"{duration(eta)} to go")
        return " · ".join(parts)

    def _say(self, text: str) -> None:
        self._spoke = self._progress.now()
        self._print(f"[{duration(self._spoke):>6}] {text}")

    def _print(self, text: str) -> None:
        if self._out is None:
            return
        try:
            print(text, file=self._out, flush=True)
        except (OSError, ValueError):  # the reader has gone (`| head`): the run goes on
            self._out = None
