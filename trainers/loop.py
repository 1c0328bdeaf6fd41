"""The training loop: play -> annotate -> credit -> batch -> learn -> publish."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch

from agentgym.protocols import BatchCredit, Loss, WeightSync
from agentgym.trainers.annotate import Annotator
from agentgym.trainers.batch import IsData, Rows, always, build_rows
from agentgym.trainers.gap import GapProbe, ReplayGap
from agentgym.trainers.learner import Learner
from agentgym.trainers.ledger import group_outcome
from agentgym.trainers.pipeline import Batch, Pipeline
from agentgym.trainers.preparation import Preparation
from agentgym.trainers.rollouts import Rollouts
from agentgym.trainers.step_metrics import group_metrics, row_metrics
from agentgym.trainers.turns import Apart
from agentgym.types import Floats, Group, Trajectory


@dataclass(slots=True)
class Loop:
    """One RL phase. `step` counts the weights: at step s the learner holds version s."""

    pipeline: Pipeline
    rollouts: Rollouts
    learner: Learner
    credit: BatchCredit
    loss: Loss
    sync: WeightSync
    max_staleness: int
    seed: int
    lr_scale: Callable[[int], float] = lambda step: 1.0
    prepare: Callable[[Group], Group] = lambda group: group
    annotator: Annotator = field(default_factory=Annotator)
    preparation: Preparation = field(default_factory=Preparation)
    probe: GapProbe | None = None
    replay: ReplayGap | None = None
    turns: Apart = field(default_factory=Apart)
    is_data: IsData = always
    run_idle: bool = False
    """Whether the loss has to see rows without advantages too, beside where KL and entropy do."""
    step: int = 0
    times: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)

    def run_step(self) -> tuple[list[Group], list[dict[str, Any]], dict[str, Any]]:
        """One step: the groups that it used up, their ledger rows, and its metrics."""
        self.times, self.cpu = {}, {}
        drawn = self._timed("wait_batch", lambda: self.pipeline.batch(self.step))
        self._timed("turn", self.turns.learn)
        drawn = self._timed("annotate", lambda: self._annotated(drawn))
        groups = drawn.groups
        prepared = [self.prepare(group) for group in groups]
        credits = self._timed("credit", lambda: self.credit(prepared))
        batch = self._timed("batch", lambda: self._rows(groups, credits))
        gap = self._timed("probe", lambda: self.probe.check(batch.rows) if self.probe else None)
        replayed = self._timed("probe", lambda: self.replay(batch.rows, self.learner) if self.replay else {})
        scale = self.lr_scale(self.step)
        trained = self._timed("fwd_bwd", lambda: self._learn(batch, scale))
        noted = self._timed("critic", lambda: self.annotator.learn(prepared))
        ledger = self._ledger(drawn, credits)
        self.step += 1
        self._timed("weight_sync", self.publish)
        self.pipeline.consumed(drawn.all)
        metrics = {
            "step": self.step,
            **group_metrics(drawn.all),
            **({"replaced": len(drawn.replaced)} if drawn.replaced else {}),
            **row_metrics(batch),
            **({"passed_over": self.pipeline.passed} if self.pipeline.passed else {}),
            **trained,
            **noted,
            "logprob_gap": gap,
            **replayed,
            "skipped_updates": self.learner.skipped,
            **{f"time/{name}": seconds for name, seconds in self.times.items()},
        }
        return drawn.all, ledger, metrics

    def _annotated(self, drawn: Batch) -> Batch:
        noted = self.annotator(drawn.all)
        return Batch(noted[: len(drawn.groups)], noted[len(drawn.groups) :])

    def publish(self) -> None:
        """Hand the learner's weights to the engines as version `step`, and let play go on as far as it may."""
        tensors = hand_over(self.step, self.learner, self.sync, self.rollouts, self.turns)
        if self.probe:
            self.probe.published(self.step, tensors)
        self.pipeline.dispatch(self.step)

    def _rows(self, groups: Sequence[Group], credits: Sequence[Sequence[Sequence[Floats]]]) -> Rows:
        return build_rows(groups, credits, version=self.step, max_staleness=self.max_staleness, is_data=self.is_data)

    def _learn(self, batch: Rows, scale: float) -> dict[str, float]:
        # of a group whose rewards are all equal nothing is learned: its tokens are not in the denominator (as when such
        # groups are filtered), nor is its distance from a reference. In other groups all rows count, those without
        # advantages too, else the gradient would depend on how episodes are cut into rows; a pass is left out where
        # there is nothing in it to have a gradient
        rows = [row for row in batch.rows if row.counts]
        options, packed = self.learner.options, self.learner.pack_s
        skip = not (options.kl or options.entropy or self.run_idle)
        rows, figures = self.preparation(rows, self.learner, skip_idle=skip)
        seed = self.seed * 1_000_003 + self.step
        trained = self.learner.train(rows, self.loss, seed=seed, lr_scale=scale, skip_idle=skip)
        self.cpu["pack"] = self.learner.pack_s - packed
        return {**trained, **figures}

    def _ledger(self, drawn: Batch, credits: Sequence[Sequence[Sequence[Floats]]]) -> list[dict[str, Any]]:
        # of those that were replaced nothing is trained: each is judged by itself
        credits = [*credits, *(self.credit([self.prepare(group)])[0] for group in drawn.replaced)]
        return [
            {
                "step": self.step + 1,
                "task": group.id,
                "group": f"{self.step + 1}/{i}",
                "outcome": group_outcome(group, credit, version=self.step, max_staleness=self.max_staleness),
            }
            for i, (group, credit) in enumerate(zip(drawn.all, credits, strict=True))
        ]

    def _timed(self, name: str, work: Callable[[], Any]) -> Any:
        began, cpu_began = perf_counter(), process_time()
        result = work()
        self.times[name] = self.times.get(name, 0.0) + perf_counter() - began
        self.cpu[name] = self.cpu.get(name, 0.0) + process_time() - cpu_began
        return result


def hand_over(
    version: int, learner: Learner, sync: WeightSync, rollouts: Rollouts, turns: Apart
) -> Mapping[str, torch.Tensor]:
    """Bring the learner's weights to the engines, which then have their turn; returns them."""
    turns.learn()  # what proves them is computed where the learner learns
    tensors = turns.carried(learner.weights())
    update = sync.publish(version, tensors)
    turns.play(lambda: rollouts.update(update))
    return tensors


def shuffled_rewards(seed: int) -> Callable[[Group], Group]:
    """A control: rewards are dealt anew within each group, so that nothing can be learned from them; what turns were
    paid, and the scores of their states, go with them."""

    def prepare(group: Group) -> Group:
        scored = [i for i, t in enumerate(group.trajectories) if t.reward is not None]
        rng = np.random.default_rng([seed, *group.id.encode()])
        dealt = dict(zip(scored, rng.permutation(scored), strict=True))
        trajectories = tuple(
            _paid_as(t, group.trajectories[dealt[i]]) if i in dealt else t for i, t in enumerate(group.trajectories)
        )
        return replace(group, trajectories=trajectories)

    return prepare


def _paid_as(trajectory: Trajectory, other: Trajectory) -> Trajectory:
    """A trajectory with the rewards and scores of another; of what that has beyond its own turns, the last has all."""
    turns = list(trajectory.turns)
    for k, turn in enumerate(turns):
        last = k == len(turns) - 1
        theirs = other.turns[k:] if last else other.turns[k : k + 1]
        score = theirs[-1].score if theirs else None
        turns[k] = replace(turn, reward=float(sum(given.reward for given in theirs)), score=score)
    return replace(trajectory, turns=tuple(turns), reward=other.reward, start_score=other.start_score)


def accepted(trajectory: Trajectory, credit: Sequence[Floats]) -> bool:
    """`IsData` beside `accepted_only`: what was not accepted is not in the data."""
    return any(weights.any() for weights in credit)


def accepted_only(group: Group) -> list[list[Floats]]:
    """A control: rejection-sampling fine-tuning. Weight 1 on the tokens of the group's best-paid episodes, else 0."""
    best = max((t.reward for t in group.trajectories if t.reward is not None), default=0.0)
    return [
        [np.full(len(turn.completion.ids), float(best > 0 and t.reward == best), np.float32) for turn in t.turns]
        for t in group.trajectories
    ]
