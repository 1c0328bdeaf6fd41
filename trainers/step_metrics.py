"""One step's figures: what the groups were like, where the time went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from agentgym.trainers.batch import Rows
from agentgym.trainers.evaluation import success, success_by
from agentgym.types import Group, Outcome, Trajectory


def group_metrics(groups: Sequence[Group]) -> dict[str, Any]:
    """Reward, success, turns, tools and stop reasons of a batch of groups. Unscored episodes are counted apart."""
    trajectories = [t for group in groups for t in group.trajectories]
    rewards = [t.reward for t in trajectories if t.reward is not None]
    spread = [_std([t.reward for t in g.trajectories if t.reward is not None]) for g in groups]
    kinds, tags = success_by(trajectories)
    stops = Counter(str(t.stop_reason) for t in trajectories)
    calls = sum(t.metrics.get("tool_calls", 0) for t in trajectories)
    errors = sum(t.metrics.get("tool_errors", 0) for t in trajectories)
    return {
        "trajectories": len(trajectories),
        "reward/mean": _mean(rewards),
        "reward/std": _std(rewards),
        "frac_reward_zero_std": _mean([float(s < 1e-9) for s in spread]),
        "success": success(trajectories),
        **{f"success/{kind}": rate for kind, rate in kinds.items()},
        **{f"success/{tag}": rate for tag, rate in tags.items()},
        **_component_means(groups),
        **_by_env(groups),
        "num_turns": _mean([float(len(t.turns)) for t in trajectories]),
        "tokens": sum(t.sampled_tokens for t in trajectories),
        "unscored": sum(t.outcome is Outcome.unscored for t in trajectories),
        **_faults(trajectories),
        "rewrites": sum(t.metrics.get("rewrites", 0) for t in trajectories),
        **_branches(trajectories),
        "tool/calls": calls,
        "tool/failure": errors / calls if calls else 0.0,
        **{f"stop_reason/{reason}": count / len(trajectories) for reason, count in sorted(stops.items())},
    }


def _faults(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """What failed and how often, retried or not, by the boundary where it did."""
    found: Counter[str] = Counter()
    for trajectory in trajectories:
        counted = {name: count for name, count in trajectory.metrics.items() if name.startswith("fault/")}
        if trajectory.error and not counted:
            counted = {f"fault/{trajectory.error.partition(':')[0]}": 1}
        found.update({name: int(count) for name, count in counted.items()})
    return dict(sorted(found.items()))


def _component_means(groups: Sequence[Group]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for group in groups:
        for trajectory in group.trajectories:
            for name, value in trajectory.components.items():
                values.setdefault(f"component/{name}", []).append(value)
    return {name: _mean(found) or 0.0 for name, found in sorted(values.items())}


def _branches(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """How often programs (`rollout.agent`) branched their conversations, by cause; nothing for our own agent."""
    counts: Counter[str] = Counter()
    for trajectory in trajectories:
        named = {name: int(n) for name, n in trajectory.metrics.items() if name.partition("_")[0] == "branches"}
        counts.update({name.replace("_", "/"): n for name, n in named.items()})
    return {name: float(count) for name, count in sorted(counts.items())}


def _by_env(groups: Sequence[Group]) -> dict[str, float | None]:
    """Groups, mean reward and success of each env, where there are several."""
    envs = sorted({group.env_id for group in groups})
    found: dict[str, float | None] = {}
    for env in envs if len(envs) > 1 else ():
        mine = [group for group in groups if group.env_id == env]
        played = [t for group in mine for t in group.trajectories]
        found[f"env/{env}/groups"] = len(mine)
        found[f"env/{env}/reward"] = _mean([t.reward for t in played if t.reward is not None])
        found[f"env/{env}/success"] = success(played)
    return found


def row_metrics(rows: Rows) -> dict[str, float]:
    """Staleness of what is trained, in versions, and the share of sampled tokens that was masked for it."""
    kept = max(1, rows.sampled_tokens - rows.stale_tokens)
    return {
        "staleness/mean": rows.staleness_sum / kept,
        "staleness/max": float(rows.staleness_max),
        "masked_frac": rows.stale_tokens / max(1, rows.sampled_tokens),
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _std(values: Sequence[float]) -> float:
    return float(np.std(values)) if len(values) else 0.0
