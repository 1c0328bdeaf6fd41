"""Where a run stands, as the reporters show it: its stages, their progress, their figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any


@dataclass(slots=True)
class Stage:
    """One stage. `total` None: nobody knows how long. Times are seconds of the run's clock."""

    name: str
    total: int | None
    unit: str
    began: float
    done: int = 0
    first: int = 0
    """Where `done` stood at the first report: a resumed stage does not begin at 0."""
    ended: float | None = None
    fields: dict[str, float | str] = field(default_factory=dict)

    def seconds(self, now: float) -> float:
        return (now if self.ended is None else self.ended) - self.began

    def eta(self, now: float) -> float | None:
        """Seconds to go at the pace so far; None where that cannot be said."""
        covered = self.done - self.first
        if not self.total or covered <= 0 or self.ended is not None:
            return None
        return self.seconds(now) * max(0, self.total - self.done) / covered


class Progress:
    """The stages of a run so far, and what its training steps brought."""

    def __init__(self, clock: Callable[[], float] = monotonic):
        self._clock, self._began = clock, clock()
        self.stages: list[Stage] = []
        self.rewards: list[float | None] = []
        """Mean reward of step 1, 2, ...; None for steps that an earlier process made."""
        self.row: Mapping[str, Any] = {}
        self.step = 0
        self.pace: float | None = None
        """Trajectories a second since this stage began."""
        self._played = 0

    def now(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._began

    @property
    def current(self) -> Stage | None:
        return self.stages[-1] if self.stages and self.stages[-1].ended is None else None

    def begin(self, name: str, total: int | None, unit: str) -> Stage | None:
        """Start a stage; returns the one that it ends."""
        former = self.end()
        self.stages.append(Stage(name, total, unit, self.now()))
        self._played = 0
        return former

    def end(self) -> Stage | None:
        former = self.current
        if former is not None:
            former.ended = self.now()
        return former

    def advance(self, done: int, fields: Mapping[str, float | str]) -> None:
        if stage := self.current:
            if stage.done == 0 and stage.unit == "steps" and done > 1:
                stage.first = done - 1
            stage.done = done
            stage.fields.update(fields)

    def metrics(self, row: Mapping[str, Any], step: int) -> None:
        self._played += int(row.get("trajectories") or 0)
        seconds = self.current.seconds(self.now()) if self.current else 0.0
        self.pace = self._played / seconds if seconds > 0 else None
        self.row, self.step = row, step
        reward = row.get("reward/mean")
        if isinstance(reward, int | float):
            self.rewards = [*self.rewards[: step - 1], *[None] * (step - 1 - len(self.rewards)), float(reward)]

    def by_kind(self) -> dict[str, float]:
        """Success by kind and tag in the last step, under plain names."""
        rates = {key.partition("/")[2]: value for key, value in self.row.items() if key.startswith("success/")}
        return {name: float(rate) for name, rate in rates.items() if isinstance(rate, int | float)}


def duration(seconds: float) -> str:
    """75 -> 1m15s."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f}s" if seconds < 10 else f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def figure(value: Any) -> str:
    """A number as a person wants to read it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "-" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0 or 0.01 <= abs(value) < 10:
        return f"{value:.3f}".removesuffix("0")
    return f"{value:,.0f}" if 100 <= abs(value) < 1e7 else f"{value:.3g}"


def flat(rows: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested figures under dotted names."""
    found: dict[str, Any] = {}
    for key, value in rows.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found
