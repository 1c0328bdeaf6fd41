"""The figures of an evaluation, out of its rows alone: an interrupted one, gone on with, has the same."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from agentgym.evals.rows import EvalRow
from agentgym.evals.statistics import (
    Interval,
    clustered_error,
    mean_interval,
    pass_at_k,
    pass_hat_k,
    success_interval,
)
from agentgym.types import Outcome


class Scored(Protocol):
    """What success is counted from: a row, or a trajectory."""

    @property
    def outcome(self) -> Outcome: ...
    @property
    def kind(self) -> str: ...
    @property
    def tags(self) -> Sequence[str]: ...


def env_figures(rows: Sequence[EvalRow], ks: Sequence[int], *, greedy: bool = False) -> dict[str, Any]:
    """The figures of one environment. Rates are over scored episodes; None where there are none.

    `success` is the mean over tasks with its 95% interval `success_ci`; `sampled` (or `greedy`) is the share of
    episodes. `pass@k` and `pass^k` are over tasks with k scored episodes at least, `pass_tasks` says how many.
    """
    rows = sorted(rows, key=lambda row: row.key)  # sums of floats depend on the order; episodes end in any
    wins = wins_by_task(rows)
    spread = success_interval(list(wins.values())) if wins else None
    return {
        **basic_figures([] if greedy else rows, rows if greedy else []),
        "tasks": len(wins),
        "success": spread.mean if spread else None,
        "success_ci": [spread.low, spread.high] if spread else None,
        "stderr": clustered_error(list(wins.values())) if wins else None,
        **_passes(list(wins.values()), ks),
        "tokens": _mean([row.tokens for row in rows]),
        "tool_calls": _mean([row.tool_calls for row in rows]),
        "tool_failures": _share(sum(row.tool_errors for row in rows), sum(row.tool_calls for row in rows)),
        "seconds": _mean([row.seconds for row in rows]),
        "stop_reasons": dict(sorted(Counter(row.stop_reason for row in rows if row.scored).items())),
        "scored": _share(sum(row.scored for row in rows), len(rows)),
        "faults": dict(sorted(Counter(row.fault for row in rows if not row.scored).items())),
    }


def basic_figures(sampled: Sequence[EvalRow], greedy: Sequence[EvalRow]) -> dict[str, Any]:
    """The figures that a run's summary.json has too. Tokens and turns are those of the sampled episodes (of the
    greedy ones where only these were played); tokens of failures count, and None says that nobody knows them."""
    by_kind, by_tag = success_by(sampled)
    greedy_by_kind, greedy_by_tag = success_by(greedy)
    played = sampled or greedy
    wins = sum(row.won for row in played)
    tokens = [row.tokens for row in played]
    known = [count for count in tokens if count is not None]
    return {
        "n": len(played),
        "sampled": success(sampled),
        "greedy": success(greedy),
        "by_kind": by_kind,
        "greedy_by_kind": greedy_by_kind,
        "by_tag": by_tag,
        "greedy_by_tag": greedy_by_tag,
        **_by_env(sampled, greedy),
        **{tag: by_tag.get(tag) for tag in sorted({tag for row in (*sampled, *greedy) for tag in row.tags})},
        "tokens_per_success": sum(known) / wins if wins and len(known) == len(tokens) else None,
        "turns": _mean([row.turns for row in played]),
        "unscored": sum(not row.scored for row in (*sampled, *greedy)),
    }


def _by_env(sampled: Sequence[EvalRow], greedy: Sequence[EvalRow]) -> dict[str, Any]:
    """Success by env, where there are several."""
    envs = sorted({row.env for row in (*sampled, *greedy)})
    if len(envs) < 2:
        return {}
    return {
        name: {env: success([row for row in rows if row.env == env]) for env in envs}
        for name, rows in (("by_env", sampled), ("greedy_by_env", greedy))
        if rows
    }


def macro_figures(envs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Over several environments, each weighing the same: success with its interval, and the passes that all have.

    None where one of them has no scored episode: a mean over the others would be one of something else.
    """
    found = list(envs.values())
    whole = all(figures["success"] is not None for figures in found)
    parts = [Interval(f["success"], *f["success_ci"]) for f in found] if whole else []
    spread = asdict(mean_interval(parts)) if parts else None
    passes = [key for key in found[0] if key.startswith(("pass@", "pass^"))]
    shared = [key for key in passes if all(f.get(key) is not None for f in found)]
    return {
        "n": sum(f["n"] for f in found),
        "tasks": sum(f["tasks"] for f in found),
        "success": spread["mean"] if spread else None,
        "success_ci": [spread["low"], spread["high"]] if spread else None,
        **{key: sum(f[key] for f in found) / len(found) for key in shared},
        "scored": _share(sum(f["n"] - f["unscored"] for f in found), sum(f["n"] for f in found)),
        "unscored": sum(f["unscored"] for f in found),
    }


def wins_by_task(rows: Iterable[EvalRow]) -> dict[int, list[float]]:
    """What each task's scored episodes won; tasks without one are left out."""
    tasks: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        if row.scored:
            tasks[row.task].append(float(row.won))
    return dict(sorted(tasks.items()))


def success(episodes: Iterable[Scored]) -> float | None:
    """Share of scored episodes that are correct; None where none was scored."""
    scored = [e.outcome is Outcome.correct for e in episodes if e.outcome is not Outcome.unscored]
    return sum(scored) / len(scored) if scored else None


def success_by(episodes: Iterable[Scored]) -> tuple[dict[str, float], dict[str, float]]:
    """Success by kind of task, and by tag of episode."""
    kinds: dict[str, list[Scored]] = defaultdict(list)
    tags: dict[str, list[Scored]] = defaultdict(list)
    for episode in episodes:
        if episode.kind:
            kinds[episode.kind].append(episode)
        for tag in episode.tags:
            tags[tag].append(episode)
    return _rates(kinds), _rates(tags)


def _rates(groups: dict[str, list[Scored]]) -> dict[str, float]:
    rates = {name: success(members) for name, members in sorted(groups.items())}
    return {name: rate for name, rate in rates.items() if rate is not None}


def _passes(tasks: Sequence[Sequence[float]], ks: Sequence[int]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    estimators: tuple[tuple[str, Callable[[int, int, int], float]], ...] = (("@", pass_at_k), ("^", pass_hat_k))
    for sign, estimate in estimators:
        for k in ks:
            rates = [estimate(len(wins), int(sum(wins)), k) for wins in tasks if len(wins) >= k]
            figures[f"pass{sign}{k}"] = _mean(rates)
    counted = {str(k): sum(len(wins) >= k for wins in tasks) for k in ks}
    return {**figures, "pass_tasks": counted}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
