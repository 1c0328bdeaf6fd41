"""Success on held-out tasks: sampled and greedy, by kind and by tag."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from agentgym.trainers.rollouts import Rollouts
from agentgym.types import GroupRequest, Outcome, Trajectory

Played = Callable[[Sequence[Trajectory]], None]


@dataclass(frozen=True, slots=True)
class EvalPlan:
    """Which held-out episodes to play: `tasks` per env, `samples` of each."""

    env_ids: tuple[str, ...]
    tasks: int
    seed: int
    temperature: float = 1.0
    samples: int = 1


def play_held_out(rollouts: Rollouts, plan: EvalPlan, *, greedy: bool, played: Played) -> list[Trajectory]:
    """Play the plan; the same seeds every time, so before and after meet the same tasks, prices and faults."""
    temperature = 0.0 if greedy else plan.temperature
    mode = "greedy" if greedy else "sampled"
    requests = [
        GroupRequest(f"eval:{mode}:{env_id}:{i}", env_id, i, plan.samples, plan.seed, temperature, "test")
        for env_id in plan.env_ids
        for i in range(plan.tasks)
    ]
    rollouts.submit(requests)
    trajectories: list[Trajectory] = []
    for _ in requests:
        group = rollouts.receive()
        trajectories += group.trajectories
        played(group.trajectories)
    return trajectories


def success(trajectories: Iterable[Trajectory]) -> float | None:
    """Share of scored episodes that are correct; None where none was scored."""
    scored = [t.outcome is Outcome.correct for t in trajectories if t.outcome is not Outcome.unscored]
    return sum(scored) / len(scored) if scored else None


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
    """The figures of one evaluation, as they stand in summary.json. Rates are over scored episodes."""
    by_kind, by_tag = success_by(sampled)
    greedy_by_kind, greedy_by_tag = success_by(greedy)
    wins = sum(t.outcome is Outcome.correct for t in sampled)
    tokens = sum(t.sampled_tokens for t in sampled)
    return {
        "n": len(sampled),
        "sampled": success(sampled),
        "greedy": success(greedy),
        "by_kind": by_kind,
        "greedy_by_kind": greedy_by_kind,
        "by_tag": by_tag,
        "greedy_by_tag": greedy_by_tag,
        **{tag: by_tag.get(tag) for tag in sorted({tag for t in (*sampled, *greedy) for tag in t.tags})},
        "tokens_per_success": tokens / wins if wins else None,
        "turns": _mean([float(len(t.turns)) for t in sampled]),
        "unscored": sum(t.outcome is Outcome.unscored for t in (*sampled, *greedy)),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
