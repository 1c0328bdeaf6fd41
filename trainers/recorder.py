"""What a run writes down of each RL step, and when it has failed too often to go on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agentgym.protocols import Reporter
from agentgym.report.metrics import MetricsWriter
from agentgym.rollout.worker import peak_mem
from agentgym.run_folder import RunFolder
from agentgym.trainers.accounting import Accounts
from agentgym.trainers.credit.needs import TurnRewardWatch
from agentgym.trainers.evaluation import shown
from agentgym.trainers.failures import FailureBudget
from agentgym.trainers.gold import GoldWatch
from agentgym.trainers.loop import Loop
from agentgym.trainers.tally import Tally
from agentgym.types import Group


@dataclass(slots=True)
class Recorder:
    """Episodes, ledger and metrics of steps into the run folder, figures into the tally and before the user's eyes."""

    folder: RunFolder
    reporter: Reporter
    metrics: MetricsWriter
    tally: Tally
    failures: FailureBudget
    gold: GoldWatch = field(default_factory=GoldWatch)
    turns: TurnRewardWatch = field(default_factory=TurnRewardWatch)
    accounts: Accounts = field(default_factory=Accounts)
    _began: float = field(default_factory=time.perf_counter)

    def step(
        self, loop: Loop, groups: Sequence[Group], ledger: Sequence[dict[str, Any]], metrics: dict[str, Any]
    ) -> None:
        """Take in what `Loop.run_step` gave; raises `RunError` where too much of it is unscored."""
        began, cpu_began = time.perf_counter(), time.process_time()
        tally = self.tally
        tally.count(metrics)
        metrics |= self.gold.metrics(groups)
        self.folder.write_trajectories(f"step-{loop.step:05d}", [t for group in groups for t in group.trajectories])
        for row in ledger:
            self.folder.append("ledger.jsonl", row)
        worker = loop.rollouts.stats()
        metrics["rl_wall_s"] = time.perf_counter() - self._began  # when the worker's counters were read
        tally.peak("learner", peak_mem())
        tally.peak("worker", worker["peak_mem"])
        metrics |= self.accounts.step(worker, {**loop.cpu, "record": time.process_time() - cpu_began})
        metrics |= {f"peak_mem/{name}": value for name, value in tally.peak_mem.items()}
        metrics["rl_cpu_s"] = tally.rl_cpu_s
        metrics["time/record"] = time.perf_counter() - began
        self._warn(loop.step, metrics, groups)
        self.metrics.log(metrics, loop.step)
        self.reporter.metrics(metrics, loop.step)
        self.reporter.episode(groups[-1].trajectories[0])
        self.reporter.advance(loop.step, reward=shown(metrics["reward/mean"]), success=shown(metrics["success"]))
        self.failures.spend((t for group in groups for t in group.trajectories), loop.step)

    def _warn(self, step: int, metrics: dict[str, Any], groups: Sequence[Group]) -> None:
        if told := [*self.gold.warnings(groups, step), *self.turns.warnings(groups, step)]:
            metrics["warnings"] = told
            for text in told:
                self.reporter.note(f"warning: {text}")
