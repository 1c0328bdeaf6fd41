"""Success on held-out tasks: sampled and greedy, by kind and by tag."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

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


def eval_set(env_id: str, env: Env, tasks: int) -> EvalSet:
    """Up to `tasks` held-out tasks of an env; its training tasks where it holds none out."""
    held_out = len(env.tasks("test"))
    if held_out:
        return EvalSet(env_id, "test", min(tasks, held_out))
    return EvalSet(env_id, "train", min(tasks, len(env.tasks("train"))))


def play_held_out(rollouts: Rollouts, plan: EvalPlan, *, greedy: bool, played: Played) -> list[Trajectory]:
    """Play the plan; the same seeds every time, so before and after meet the same tasks, prices and faults."""
    temperature = 0.0 if greedy else plan.temperature
    mode = "greedy" if greedy else "sampled"
    requests = [
        GroupRequest(f"eval:{mode}:{s.env_id}:{i}", s.env_id, i, plan.samples, plan.seed, temperature, s.split)
        for s in plan.sets
        for i in range(s.count)
    ]
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


def success(trajectories: Iterable[Trajectory]) -> float | None:
    """Share of scored episodes that are correct; None where none was scored."""
    scored = [t.outcome is Outcome.correct for t in trajectories if t.outcome is not Outcome.unscored]
    return sum(scored) / len(scored) if scored else None


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


def success_by(trajectories: Iterable[Trajectory]) -> tuple[dict[str, float], dict[str, float]]:
    """Success by kind of task, and by tag of episode."""
    kinds: dict[str, list[Trajectory]] = defaultdict(list)
    tags: dict[str, list[Trajectory]] = defaultdict(list)
    for trajectory in trajectories:
        if trajectory.kind:
            kinds[trajectory.kind].append(trajectory)
        for tag in trajectory.tags:
            tags[tag].append(trajectory)
    return _rates(kinds), _rates(tags)


def _rates(groups: dict[str, list[Trajectory]]) -> dict[str, float]:
    rates = {name: success(members) for name, members in sorted(groups.items())}
    return {name: rate for name, rate in rates.items() if rate is not None}


def report(sampled: Sequence[Trajectory], greedy: Sequence[Trajectory]) -> dict[str, Any]:
    """The figures of one evaluation, as they stand in summary.json. Rates are over scored episodes; tokens and turns
    are those of the sampled episodes (of the greedy ones where only these were played)."""
    by_kind, by_tag = success_by(sampled)
    greedy_by_kind, greedy_by_tag = success_by(greedy)
    played = sampled or greedy
    wins = sum(t.outcome is Outcome.correct for t in played)
    tokens = sum(t.sampled_tokens for t in played)
    return {
        "n": len(played),
        "sampled": success(sampled),
        "greedy": success(greedy),
        "by_kind": by_kind,
        "greedy_by_kind": greedy_by_kind,
        "by_tag": by_tag,
        "greedy_by_tag": greedy_by_tag,
        **{tag: by_tag.get(tag) for tag in sorted({tag for t in (*sampled, *greedy) for tag in t.tags})},
        "tokens_per_success": tokens / wins if wins else None,
        "turns": _mean([float(len(t.turns)) for t in played]),
        "unscored": sum(t.outcome is Outcome.unscored for t in (*sampled, *greedy)),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def report_tasks(played: Sequence[Trajectory]) -> dict[str, float]:
    """Figures over tasks with k scored episodes each: `pass@k`, and the standard error of the success rate.

    The error is clustered by task, as episodes of one task are alike: sqrt(sum over tasks of (sum over its episodes of
    (x - mean))^2) / n (Miller 2024, "Adding error bars to evals", eq. 4).
    """
    tasks: dict[str, list[float]] = defaultdict(list)
    for trajectory in played:
        if trajectory.outcome is not Outcome.unscored:
            tasks[trajectory.task_id].append(float(trajectory.outcome is Outcome.correct))
    count = sum(map(len, tasks.values()))
    if not count:
        return {}
    mean = sum(map(sum, tasks.values())) / count
    error = math.sqrt(sum((sum(wins) - mean * len(wins)) ** 2 for wins in tasks.values())) / count
    tries = max(map(len, tasks.values()))
    return {f"pass@{tries}": sum(any(wins) for wins in tasks.values()) / len(tasks), "stderr": error}
