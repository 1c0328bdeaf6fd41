"""Two evaluations of the same episodes, paired by task: which is better, by how much, and could it be chance?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from agentgym.config import EnvConfig
from agentgym.errors import CompareError, RunError
from agentgym.evals.figures import wins_by_task
from agentgym.evals.folder import PLAN, EvalFolder
from agentgym.evals.plan import EnvPlan, Evaluation
from agentgym.evals.report import percent
from agentgym.evals.rows import EvalRow, Key
from agentgym.evals.statistics import Paired, paired
from agentgym.evals.tables import Table

LISTED = 10
"""Changed tasks that are named on the terminal."""
LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: a whole evaluation."""

    name: str
    plan: Evaluation
    rows: Mapping[Key, EvalRow]


def load_side(path: str) -> Side:
    """The evaluation of a folder, or of a file in one. Raises `RunError`, and `CompareError` where it is not whole."""
    where = Path(path).expanduser()
    folder = where.parent if where.is_file() else where
    if not (folder / PLAN).is_file() and (folder / "config.toml").is_file():
        raise RunError(f"{path} is a run, not an evaluation: agentgym eval {path} --out DIR makes one of it")
    opened = EvalFolder.open(folder)
    rows = opened.rows()
    lacking = len(opened.plan.keys) - len(rows)
    if lacking:
        raise CompareError(f"{path}: {lacking} of {len(opened.plan.keys)} episodes are missing: eval --resume {folder}")
    return Side(path, opened.plan, rows)


def compare(a: Side, b: Side) -> dict[str, Any]:
    """What B won more than A: by environment, and over all of them (each weighing the same).

    Raises `CompareError` that says why, where the two did not play the same tasks under the same conditions.
    """
    check_same(a, b)
    envs: dict[str, dict[str, Any]] = {}
    groups: list[list[Fraction]] = []
    for env in a.plan.envs:
        tasks = _paired_tasks(env.name, a.rows, b.rows)
        if not tasks:
            raise CompareError(f"{env.name}: no task was scored in both evaluations")
        differences = [y - x for _, x, y in tasks]
        groups.append(differences)
        envs[env.name] = {
            "tasks": len(tasks),
            "left_out": env.tasks - len(tasks),
            "a": float(sum(x for _, x, _ in tasks) / len(tasks)),
            "b": float(sum(y for _, _, y in tasks) / len(tasks)),
            **_shown(paired([differences])),
            "better": [_changed(task) for task in tasks if task[2] > task[1]],
            "worse": [_changed(task) for task in tasks if task[2] < task[1]],
        }
    return {"a": a.name, "b": b.name, **_shown(paired(groups)), "envs": envs}


def check_same(a: Side, b: Side) -> None:
    """Raises `CompareError` naming the first thing in which the two differ."""

    def differ(what: str, x: Any, y: Any) -> CompareError:
        return CompareError(f"{a.name} and {b.name} cannot be compared: {what}: {x} and {y}")

    names = [[env.name for env in side.plan.envs] for side in (a, b)]
    if sorted(names[0]) != sorted(names[1]):
        raise differ("their environments differ", ", ".join(names[0]), ", ".join(names[1]))
    if a.plan.seed != b.plan.seed:
        raise differ("their seeds differ, and so what the episodes met", a.plan.seed, b.plan.seed)
    for x in a.plan.envs:
        y = next(env for env in b.plan.envs if env.name == x.name)
        for name in ("id", "split", "tasks", "samples"):
            if getattr(x, name) != getattr(y, name):
                raise differ(f"{x.name}: {name} differ", getattr(x, name), getattr(y, name))
        for name in ("data", "reward", "tools", "args"):
            given = [getattr(_config_of(side.plan, x), name) for side in (a, b)]
            if given[0] != given[1]:
                raise differ(f"{x.name}: env.{name} differ", repr(given[0]), repr(given[1]))
    for key, row in a.rows.items():
        other = b.rows[key]
        if row.prompt and other.prompt and (row.task_id, row.prompt) != (other.task_id, other.prompt):
            raise differ(
                f"{key[0]}: task {key[1]} is another", f"{row.task_id!r}", f"{other.task_id!r}, or asks otherwise"
            )


def _config_of(plan: Evaluation, env: EnvPlan) -> EnvConfig:
    return next(found for found in plan.config.all_envs if found.label == env.name)


def _paired_tasks(env: str, a: Mapping[Key, EvalRow], b: Mapping[Key, EvalRow]) -> list[tuple[str, Fraction, Fraction]]:
    """(task id, success of A, success of B) of every task that both have scored episodes of."""
    own = [[row for row in side.values() if row.env == env] for side in (a, b)]
    left, right = (wins_by_task(rows) for rows in own)
    names = {row.task: row.task_id for row in own[0] if row.scored}
    return [(names[task], rate(left[task]), rate(right[task])) for task in sorted(left.keys() & right.keys())]


def rate(wins: Sequence[float]) -> Fraction:
    return Fraction(int(sum(wins)), len(wins))


def _changed(task: tuple[str, Fraction, Fraction]) -> dict[str, Any]:
    return {"task_id": task[0], "a": float(task[1]), "b": float(task[2])}


def _shown(result: Paired) -> dict[str, Any]:
    d = result.difference
    return {"difference": d.mean, "ci": [d.low, d.high], "p": result.p, "test": result.test}


def compare_tables(found: Mapping[str, Any]) -> list[Table]:
    """The comparison for a person."""
    envs: Mapping[str, Mapping[str, Any]] = found["envs"]
    rows = [[name, percent(e["a"]), percent(e["b"]), *_cells(e), str(e["tasks"])] for name, e in envs.items()]
    if len(rows) > 1:
        means = [percent(sum(e[side] for e in envs.values()) / len(envs)) for side in "ab"]
        rows.append(["mean", *means, *_cells(found), str(sum(e["tasks"] for e in envs.values()))])
    columns = ["", "A", "B", "B - A", "95% interval", "p", "tasks"]
    tables = [Table(f"A: {found['a']}   B: {found['b']}", columns, rows)]
    for name, env in envs.items():
        changed = [(word, task) for word in ("worse", "better") for task in env[word]]
        if changed:
            shown = [[task["task_id"], percent(task["a"]), percent(task["b"]), word] for word, task in changed[:LISTED]]
            more = f", {LISTED} of them here" if len(changed) > LISTED else ""
            title = f"{name}: {len(env['better'])} tasks better, {len(env['worse'])} worse{more}"
            tables.append(Table(title, ["task", "A", "B", ""], shown))
    return tables


def verdict(found: Mapping[str, Any]) -> str:
    """What the comparison says, in a sentence."""
    p, difference = found["p"], found["difference"]
    if p >= LEVEL:
        return f"No difference that could not be chance ({p_value(p, 'p ')})."
    word = "better" if difference > 0 else "worse"
    return f"B is {word} than A by {points(abs(difference))} ({p_value(p, 'p ')})."


def p_value(p: float, name: str = "") -> str:
    """0.0123, or < 0.0001; with a `name` before it: p = 0.0123."""
    if p < 0.0001:
        return f"{name}< 0.0001"
    return f"{name}= {p:.4f}" if name else f"{p:.4f}"


def points(difference: float) -> str:
    return f"{100 * difference:.1f} points"


def signed(difference: float) -> str:
    return f"{100 * difference:+.1f}"


def _cells(found: Mapping[str, Any]) -> list[str]:
    low, high = found["ci"]
    return [signed(found["difference"]), f"{signed(low)} to {signed(high)}", p_value(found["p"])]
