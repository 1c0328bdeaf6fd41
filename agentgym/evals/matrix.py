"""Several models on the same environments: does training on one help or hurt on another?

Each cell is compared, paired by task, with the first model's; and with the run's own evaluation before its training
where that played the same episodes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agentgym.errors import AgentGymError
from agentgym.evals.compare import LEVEL, Side, check_same, compare, p_value, rate, signed
from agentgym.evals.figures import wins_by_task
from agentgym.evals.report import percent
from agentgym.evals.rows import EvalRow, Key, row_of
from agentgym.evals.statistics import paired, success_interval
from agentgym.evals.tables import Table
from agentgym.rollout.record import read_trajectories


def make_matrix(sides: Sequence[Side], named: Sequence[str] = ()) -> dict[str, Any]:
    """One row a side: success on each environment with its interval, the difference from the first row, and from
    before the run's training. Raises `CompareError` where the sides did not play the same."""
    first, rows = sides[0], []
    for i, side in enumerate(sides):
        check_same(first, side)
        against = compare(first, side)["envs"] if i else {}
        before = before_training(side)
        cells = {env.name: _cell(env.name, side, against.get(env.name), before) for env in side.plan.envs}
        rows.append({"model": named[i] if named else side.name, "folder": side.name, "envs": cells})
    return {"first": rows[0]["model"], "rows": rows}


def _cell(env: str, side: Side, against: Mapping[str, Any] | None, before: Mapping[Key, EvalRow]) -> dict[str, Any]:
    wins = list(wins_by_task(row for row in side.rows.values() if row.env == env).values())
    spread = success_interval(wins) if wins else None
    cell: dict[str, Any] = {
        "success": spread.mean if spread else None,
        "success_ci": [spread.low, spread.high] if spread else None,
        "tasks": len(wins),
    }
    if against is not None:
        cell["vs_first"] = {key: against[key] for key in ("difference", "ci", "p", "tasks")}
    if (change := _since(env, side, before)) is not None:
        cell["vs_before"] = change
    return cell


def _since(env: str, side: Side, before: Mapping[Key, EvalRow]) -> dict[str, Any] | None:
    """Against the same episodes before training; None where there are none."""
    keys = [key for key, row in before.items() if key[0] == env and _alike(row, side.rows.get(key))]
    old, new = (wins_by_task(rows[key] for key in keys) for rows in (before, side.rows))
    tasks = sorted(old.keys() & new.keys())
    if not tasks:
        return None
    result = paired([[rate(new[task]) - rate(old[task]) for task in tasks]])
    d = result.difference
    return {"difference": d.mean, "ci": [d.low, d.high], "p": result.p, "tasks": len(tasks)}


def _alike(row: EvalRow, other: EvalRow | None) -> bool:
    return other is not None and (row.seed, row.task_id, row.prompt) == (other.seed, other.task_id, other.prompt)


def before_training(side: Side) -> dict[Key, EvalRow]:
    """The episodes of a run's evaluation before its training, in the mode of `side`; none for what is no run."""
    model = Path(side.plan.model).expanduser()
    above = (model, model.parent, model.parent.parent)
    run = next((found for found in above if (found / "config.toml").is_file()), model)
    path = run / "trajectories" / "eval-before.jsonl"
    rows: dict[Key, EvalRow] = {}
    try:
        for trajectory in read_trajectories(path) if path.is_file() else ():
            place = re.fullmatch(rf"eval:{side.plan.mode}:(?P<env>.*):(?P<task>\d+)/\d+", trajectory.id)
            if place:
                row = row_of(trajectory, int(place["task"]))
                rows[row.key] = row
    except AgentGymError:
        return {}
    return rows


def matrix_tables(matrix: Mapping[str, Any]) -> list[Table]:
    """The matrix for a person: success, and the differences in points, * where chance is an unlikely cause."""
    rows: Sequence[Mapping[str, Any]] = matrix["rows"]
    names = list(rows[0]["envs"])
    lines = [[row["model"], *[_shown(row["envs"][name]) for name in names]] for row in rows]
    title = f"success; in brackets, against {matrix['first']} and against before training (points; * p < {LEVEL})"
    return [Table(title, ["", *names], lines)]


def _shown(cell: Mapping[str, Any]) -> str:
    parts = []
    for key, word in (("vs_first", "first"), ("vs_before", "before")):
        if key in cell:
            star = "*" if cell[key]["p"] < LEVEL else ""
            parts.append(f"{word} {signed(cell[key]['difference'])}{star}")
    more = f" ({', '.join(parts)})" if parts else ""
    return percent(cell["success"]) + more


def matrix_notes(matrix: Mapping[str, Any]) -> list[str]:
    """The differences that chance would hardly make, in words."""
    notes = []
    for row in matrix["rows"]:
        for env, cell in row["envs"].items():
            for key, word in (("vs_first", f"than {matrix['first']}"), ("vs_before", "than before training")):
                change = cell.get(key)
                if change and change["p"] < LEVEL:
                    better = "better" if change["difference"] > 0 else "worse"
                    by = f"{100 * abs(change['difference']):.1f} points"
                    notes.append(f"{row['model']} is {better} {word} on {env} by {by} ({p_value(change['p'], 'p ')})")
    return notes
