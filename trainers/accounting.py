"""Where the CPU-seconds of a step go: model compute, and everything else by part."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

WORKER_PARTS = ("env", "render", "parse")
LEARNER_PASSES = ("fwd_bwd", "annotate", "critic")
LEARNER_PARTS = ("credit", "batch", "weight_sync", "record")
GAUGES = ("peak_mem", "episodes", "concurrency", "engine/running", "engine/waiting", "engine/serving")
"""What a worker reports as it is, not as a sum since it began."""


@dataclass(slots=True)
class Accounts:
    """Turns cumulative counters into the figures of one step.

    Compute is what the engine's forward passes and sampling and the learner's forward and backward passes take, those
    that credit asks for among them (`annotate`: values and likelihoods; `critic`: learning values). The
    probe of the logprob gap is a check and on neither side. All else that either process spends is overhead: `env`
    (tools and reward included), `render`, `parse`, `pack` (laying out the engine's steps and the learner's
    micro-batches), `credit`, `batch` (the learner's rows), `weight_sync`, `record` (writing the run folder; what
    follows a step's row, as its checkpoint, is in the next row), and `ipc_other`, the remainder: pickling and queues,
    event loop, garbage collection.
    """

    _cpu: float = field(default_factory=time.process_time)
    _late: float = 0.0
    _worker: Mapping[str, float] = field(default_factory=dict)

    def begin(self, worker: Mapping[str, float]) -> None:
        """Count from here."""
        self._late = 0.0
        self._cpu, self._worker = time.process_time(), dict(worker)

    def step(self, worker: Mapping[str, float], parts: Mapping[str, float]) -> dict[str, float]:
        """The row of a step. worker: its cumulative statistics; parts: CPU-seconds of the learner's parts.

        The worker's statistics are in the row too, `worker/...`: what this step added to them, gauges as they are.
        """
        now = time.process_time()
        parts = {**parts, "record": parts.get("record", 0.0) + self._late}
        used = {name: value - self._worker.get(name, 0.0) for name, value in worker.items()}
        total = now - self._cpu + used.get("cpu_s", 0.0)
        self._cpu, self._worker, self._late = now, dict(worker), 0.0
        shown = {f"worker/{name}": worker[name] if name in GAUGES else value for name, value in used.items()}
        return {**split(total, used, parts), **shown}

    def recorded(self) -> None:
        """A step's row is written: what was spent since `step` was for recording it, and counts in the next row."""
        self._late = time.process_time() - self._cpu


def split(total: float, worker: Mapping[str, float], parts: Mapping[str, float]) -> dict[str, float]:
    """CPU-seconds of a step by part; `overhead_frac` is their share that is no model compute."""
    packing = {"engine": worker.get("engine/pack_s", 0.0), "learner": parts.get("pack", 0.0)}
    passes = {
        "engine": worker.get("engine/cpu_s", 0.0),
        "learner": sum(parts.get(name, 0.0) for name in LEARNER_PASSES),
    }
    compute = {name: passes[name] - packing[name] for name in passes}
    named = {name: worker.get(f"{name}_s", 0.0) for name in WORKER_PARTS}
    named |= {"pack": sum(packing.values()), **{name: parts.get(name, 0.0) for name in LEARNER_PARTS}}
    spent = total - parts.get("probe", 0.0)
    overhead = max(0.0, spent - sum(compute.values()))
    named["ipc_other"] = overhead - sum(named.values())
    return {
        **{f"compute/{name}": value for name, value in compute.items()},
        **{f"overhead/{name}": value for name, value in named.items()},
        "overhead_frac": overhead / spent if spent > 0 else 0.0,
    }
