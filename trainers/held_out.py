"""How a run plays the tasks that it does not train on, and what it keeps of that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agentgym.config import Config
from agentgym.protocols import Reporter
from agentgym.run_folder import RunFolder
from agentgym.trainers.evaluation import (
    EvalPlan,
    EvalSet,
    eval_set,
    play_held_out,
    report,
    shown,
    success,
    unscored_remark,
)
from agentgym.trainers.interim import Interim
from agentgym.trainers.rollouts import Rollouts
from agentgym.trainers.stall import StallWatch
from agentgym.types import Trajectory


@dataclass(frozen=True, slots=True)
class HeldOut:
    """make_env: an env by its label; check: raises where the run is to stop."""

    config: Config
    make_env: Callable[[str], Any]
    folder: RunFolder
    reporter: Reporter
    watch: StallWatch
    check: Callable[[], None]

    def play(self, when: str, rollouts: Rollouts) -> dict[str, Any]:
        """`eval.tasks` of each env, sampled and, where `eval.greedy`, greedily too: their figures. The episodes are
        written as the trajectories `eval-{when}`."""
        config, plan = self.config.eval, self._plan()
        episodes = plan.episodes * (2 if config.greedy else 1)
        self.reporter.stage(f"evaluate {when}", episodes, "episodes")
        played: list[Trajectory] = []

        def seen(trajectories: Sequence[Trajectory]) -> None:
            played.extend(trajectories)
            self.check()
            self.reporter.advance(len(played), success=shown(success(played)))
            self.watch.about = f"{len(played)} of {episodes} episodes of the evaluation are there"

        sampled = play_held_out(rollouts, plan, greedy=False, played=seen)
        greedy = play_held_out(rollouts, plan, greedy=True, played=seen) if config.greedy else []
        self.watch.about = ""
        if remark := unscored_remark(played):
            self.reporter.note(remark)
        self.folder.write_trajectories(f"eval-{when}", [*sampled, *greedy])
        return report(sampled, greedy)

    def interim(self, rollouts: Rollouts, log: Callable[[dict[str, Any], int], None]) -> Interim:
        """Evaluations each `eval.every` steps; log: takes their rows of metrics."""

        def done(step: int, played: Sequence[Trajectory], figures: dict[str, Any]) -> None:
            if remark := unscored_remark(played):
                self.reporter.note(remark)
            self.folder.write_trajectories(f"eval-step-{step:05d}", played)
            log({"eval": "during", **figures}, step)
            rate, versions = shown(figures["sampled"]), figures["versions"]
            told = f"{rate:.3f}" if isinstance(rate, float) else rate
            self.reporter.note(f"evaluated from step {step} on: success {told}, by versions {versions}")

        every = self.config.eval.every if self.config.eval.tasks else 0
        return Interim(every, self._plan() if every else EvalPlan((), 0), rollouts, done)

    def _plan(self) -> EvalPlan:
        return EvalPlan(self._sets(), self.config.eval.seed, self.config.eval.temperature)

    def _sets(self) -> tuple[EvalSet, ...]:
        tasks = self.config.eval.tasks
        sets = tuple(eval_set(spec.label, self.make_env(spec.label), tasks) for spec in self.config.all_envs)
        for chosen in sets:
            if chosen.split != "test":
                self.reporter.note(f"{chosen.env_id or 'env'} holds no tasks out: evaluated on its training tasks")
        return sets
