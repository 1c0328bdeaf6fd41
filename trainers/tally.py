"""What a run has used and made so far."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(slots=True)
class Tally:
    """Counts that checkpoints carry over; times in seconds, memory in MiB."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    rl_cpu_s: float = 0.0
    trajectories: int = 0
    tokens: int = 0
    unscored: int = 0
    gap: float | None = None
    peak_mem: dict[str, float] = field(default_factory=dict)
    before: dict[str, Any] = field(default_factory=dict)
    sft_steps: int = 0
    sft_loss: float | None = None
    warm: bool = False
    warned: list[dict[str, Any]] = field(default_factory=list)
    """Where the reward parted from an env's gold (`trainers.gold`)."""

    def count(self, metrics: Mapping[str, Any]) -> None:
        """Add a step's."""
        self.trajectories += metrics["trajectories"]
        self.tokens += metrics["tokens"]
        self.unscored += metrics["unscored"]
        if metrics["logprob_gap"] is not None:  # None: not measured
            self.gap = max(self.gap or 0.0, metrics["logprob_gap"])

    def peak(self, process: str, held: float) -> None:
        self.peak_mem[process] = max(self.peak_mem.get(process, 0.0), held)

    def state(self) -> dict[str, Any]:
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def summary(self) -> dict[str, Any]:
        """Its part of summary.json."""
        return {
            "trajectories": self.trajectories,
            "tokens_sampled": self.tokens,
            "wall_s": round(self.wall_s, 2),
            "cpu_s": round(self.cpu_s, 2),
            "rl_cpu_s": round(self.rl_cpu_s, 2),
            "sft": {"steps": self.sft_steps, "loss": self.sft_loss} if self.sft_steps else {},
            "before": self.before,
            "trajectories_per_cpu_s": self.trajectories / self.rl_cpu_s if self.rl_cpu_s else None,
            "logprob_gap_max": self.gap,
            "unscored": self.unscored,
            "warnings": self.warned,
            "peak_mem_mib": {name: round(value) for name, value in self.peak_mem.items()},
        }


@dataclass(slots=True)
class Clock:
    """A run's wall and CPU time over all its processes and resumptions."""

    wall: float
    cpu: float
    """`perf_counter` and `process_time` where this process's part is counted from."""
    wall_before: float = 0.0
    cpu_before: float = 0.0

    def resumed(self, tally: Tally) -> None:
        self.wall_before, self.cpu_before = tally.wall_s, tally.cpu_s

    def read(self, tally: Tally, children: float) -> None:
        """Set the tally's times; `children` are the CPU-seconds of other processes."""
        tally.cpu_s = self.cpu_before + time.process_time() - self.cpu + children
        tally.wall_s = self.wall_before + time.perf_counter() - self.wall
