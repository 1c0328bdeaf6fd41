"""Success on held-out tasks: sampled and greedy, by kind and by tag."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agentgym.evals.figures import basic_figures
from agentgym.evals.figures import success as success
from agentgym.evals.figures import success_by as success_by
from agentgym.evals.rows import row_of
from agentgym.protocols import Env
from agentgym.trainers.rollouts import Rollouts
from agentgym.types import GroupRequest, Outcome, Trajectory

Played = Callable[[Sequence[Trajectory]], None]


@dataclass(frozen=True, slots=True)
class EvalSet:
    """The first `count` tasks of an env's `split`."""

    env_id: str
    split: Literal["train", "test"]
    count: int


@dataclass(frozen=True, slots=True)
class EvalPlan:
    """Which episodes to play: `samples` of each task of the sets."""

    sets: tuple[EvalSet, ...]
    seed: int
    temperature: float = 1.0
    samples: int = 1

    @property
    def episodes(self) -> int:
        return self.samples * sum(s.count for s in self.sets)


def eval_set(env_id: str, env: Env, tasks: int, split: Literal["train", "test"] | None = None) -> EvalSet:
    """Up to `tasks` held-out tasks of an env; its training tasks where it holds none out, or `split` says so."""
    if split is not None:
        return EvalSet(env_id, split, min(tasks, len(env.tasks(split))))
    held_out = len(env.tasks("test"))
    if held_out:
        return EvalSet(env_id, "test", min(tasks, held_out))
    return EvalSet(env_id, "train", min(tasks, len(env.tasks("train"))))


def requests_of(plan: EvalPlan, name: str, temperature: float) -> list[GroupRequest]:
    """The plan as requests, whose ids no training task has; an episode depends on `name`."""
    return [
        GroupRequest(f"eval:{name}:{s.env_id}:{i}", s.env_id, i, plan.samples, plan.seed, temperature, s.split)
        for s in plan.sets
        for i in range(s.count)
    ]


def play_held_out(rollouts: Rollouts, plan: EvalPlan, *, greedy: bool, played: Played) -> list[Trajectory]:
    """Play the plan; the same seeds every time, so before and after meet the same tasks, prices and faults."""
    requests = requests_of(plan, "greedy" if greedy else "sampled", 0.0 if greedy else plan.temperature)
    rollouts.submit(requests)
    trajectories: list[Trajectory] = []
    pending = {request.id for request in requests}
    while pending:
        group = rollouts.receive()
        if group.id not in pending:
            continue  # begun by training that ended early
        pending.remove(group.id)
        trajectories += group.trajectories
        played(group.trajectories)
    return trajectories


def shown(rate: float | None) -> float | str:
    """A rate for a progress line, which is no number where nothing was scored."""
    return "none scored" if rate is None else rate


def unscored_remark(trajectories: Sequence[Trajectory]) -> str | None:
    """How many episodes could not be played or scored, and what was most often to blame; None where all were."""
    causes = [t.error or "unknown" for t in trajectories if t.outcome is Outcome.unscored]
    if not causes:
        return None
    top, _ = Counter(causes).most_common(1)[0]
    return f"{len(causes)} of {len(trajectories)} episodes are unscored; most often: {top}"


def report(sampled: Sequence[Trajectory], greedy: Sequence[Trajectory]) -> dict[str, Any]:
    """The figures of one evaluation, as they stand in summary.json. Rates are over scored episodes; tokens and turns
    are those of the sampled episodes (of the greedy ones where only these were played)."""
    return basic_figures([row_of(t, 0) for t in sampled], [row_of(t, 0) for t in greedy])
