"""`agentgym check-run`: a run's folder held against itself: whole files, an honest ledger, the bound on staleness.

Everything is recomputed from the stored trajectories: how each group ended, how old each trained token was, and the
figures of each step.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agentgym.config import Config
from agentgym.errors import DataError
from agentgym.protocols import BatchCredit
from agentgym.rollout.make import load_tokenizer
from agentgym.rollout.record import read_trajectories
from agentgym.run_folder import RunFolder
from agentgym.trainers.check_ages import Ages, count_ages
from agentgym.trainers.check_files import check_checkpoint, check_model
from agentgym.trainers.checkpoint import list_checkpoints, load_state
from agentgym.trainers.credit import each, make_credit
from agentgym.trainers.ledger import group_outcome
from agentgym.trainers.loop import accepted_only, shuffled_rewards
from agentgym.trainers.shaping import shaped
from agentgym.trainers.step_metrics import group_metrics
from agentgym.types import GIVEN, Group, Outcome

OUTCOMES = ("trained", "filtered", "unscored", "stale")
COMPARED = (
    "trajectories", "reward/mean", "success", "unscored", "tokens", "masked_frac", "staleness/mean", "staleness/max",
)  # fmt: skip


@dataclass(slots=True)
class Found:
    """What a check says: figures of the run, and what is wrong with it."""

    figures: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def wrong(self, text: str) -> None:
        self.problems.append(text)


def check_run(path: str | Path) -> Found:
    """Check the run in a folder; raises `RunError` where it is none. Needs what its credit needs, and no model."""
    folder = RunFolder.open(path)
    config = folder.load_config()
    found = Found()
    try:
        metrics = _steps(folder, found)
        ledger = _ledger(folder, found)
    except DataError as e:
        found.wrong(str(e))
        return found
    totals = Counter[str]()
    for step, rows in ledger.items():
        _check_step(folder, config, step, rows, metrics.get(step), found, totals)
    for step in sorted(set(metrics) - set(ledger)):
        found.wrong(f"ledger.jsonl: has no row of step {step}, metrics.jsonl has")
    _check_strays(folder, ledger, found)
    _check_checkpoints(folder, config, ledger, found)
    _check_summary(folder, len(ledger), found)
    found.figures |= _figures(config, ledger, metrics, totals)
    return found


def _steps(folder: RunFolder, found: Found) -> dict[int, dict[str, Any]]:
    """The rows of metrics.jsonl by step, evaluations left out."""
    rows = [row for row in folder.rows("metrics.jsonl") if "eval" not in row]
    steps = [row.get("step") for row in rows]
    if steps != list(range(1, len(steps) + 1)):
        found.wrong(f"metrics.jsonl: steps are not 1 to {len(steps)}, each once")
    return {int(row["step"]): row for row in rows if isinstance(row.get("step"), int)}


def _ledger(folder: RunFolder, found: Found) -> dict[int, list[dict[str, Any]]]:
    """The rows of ledger.jsonl by step."""
    by_step: dict[int, list[dict[str, Any]]] = {}
    seen: dict[str, int] = {}
    for number, row in enumerate(folder.rows("ledger.jsonl"), 1):
        where = f"ledger.jsonl:{number}"
        step, task, outcome = row.get("step"), row.get("task"), row.get("outcome")
        if not isinstance(step, int) or not isinstance(task, str) or outcome not in OUTCOMES:
            found.wrong(f"{where}: not a row of {{step, task, group, outcome}} with an outcome of {OUTCOMES}")
            continue
        if task in seen:
            found.wrong(f"{where}: task {task} has ended in line {seen[task]} already")
        seen[task] = number
        by_step.setdefault(step, []).append(row)
    if list(by_step) != list(range(1, len(by_step) + 1)):
        found.wrong(f"ledger.jsonl: steps are not 1 to {len(by_step)}, in order")
    return by_step


def _check_step(
    folder: RunFolder,
    config: Config,
    step: int,
    rows: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, Any] | None,
    found: Found,
    totals: Counter[str],
) -> None:
    name = f"trajectories/step-{step:05d}.jsonl"
    if not (folder.path / name).is_file():
        found.wrong(f"{name}: is not there, the ledger has the step")
        return
    try:
        groups = _groups(folder.path / name)
    except DataError as e:
        found.wrong(str(e))
        return
    asked = [row["task"] for row in rows]
    if sorted(asked) != sorted(groups):
        odd = sorted(set(asked) ^ set(groups))
        found.wrong(f"{name}: its groups are not those of the ledger's step {step}: {', '.join(odd[:3])}")
        return
    ordered = [groups[task] for task in asked]
    for problem in _tokens(ordered, step):
        found.wrong(f"{name}: {problem}")
    credit, bound = _credit(config), config.rollout.max_staleness
    shuffled = config.trainer.control == "shuffle_rewards"
    prepare = shuffled_rewards(config.run.seed) if shuffled else (lambda group: group)
    used = len(ordered) - int((metrics or {}).get("replaced") or 0)
    prepared = [prepare(group) for group in ordered]
    credits = [*credit(prepared[:used]), *(credit([group])[0] for group in prepared[used:])]
    for row, group, advantages in zip(rows, ordered, credits, strict=True):
        outcome = group_outcome(group, advantages, version=step - 1, max_staleness=bound)
        if outcome != row["outcome"]:
            found.wrong(f"ledger.jsonl: task {group.id} is {row['outcome']}, its trajectories say {outcome}")
    ages = count_ages(ordered[:used], credits[:used], version=step - 1, bound=bound)
    again = {**group_metrics(ordered), **ages.figures}
    if metrics is not None:
        if problem := _trained(metrics, ages, bound):
            found.wrong(f"metrics.jsonl: step {step}: {problem}")
        for key in COMPARED:
            if not _same(metrics.get(key), again[key]):
                found.wrong(f"metrics.jsonl: step {step}: {key} is {metrics.get(key)}, recomputed {again[key]}")
    totals.update(row["outcome"] for row in rows)
    totals["trajectories"] += int(again["trajectories"])
    totals["sampled_tokens"] += ages.sampled
    totals["masked_tokens"] += ages.too_old
    totals["staleness_sum"] += ages.total
    totals["staleness_max"] = max(totals["staleness_max"], ages.oldest)
    for group in ordered:
        for trajectory in group.trajectories:
            if trajectory.outcome is Outcome.unscored:
                totals[f"fault/{(trajectory.error or 'unknown').partition(':')[0]}"] += 1


def _trained(metrics: Mapping[str, Any], ages: Ages, bound: int) -> str:
    """What is wrong with the number of tokens that the learner says it has trained: it counts what was masked last."""
    told = metrics.get("trained_tokens")
    if told is None or max(1, ages.trainable) <= told <= max(1, ages.counted):
        return ""
    if told > ages.counted:
        return f"{told:g} tokens were trained, and {ages.counted} of that step are at most {bound} versions old"
    if metrics.get("rows_above_budget"):  # which may have been dropped
        return ""
    return f"{told:g} tokens were trained, of {ages.trainable} that are at most {bound} versions old"


def _groups(path: Path) -> dict[str, Group]:
    """By the id of their request, in the order of the file."""
    played: dict[str, list[Any]] = {}
    for trajectory in read_trajectories(path):
        played.setdefault(trajectory.id.rpartition("/")[0], []).append(trajectory)
    return {name: Group(name, found[0].task_id, found[0].env_id, tuple(found)) for name, found in played.items()}


def _tokens(groups: Sequence[Group], step: int) -> Iterator[str]:
    for group in groups:
        for trajectory in group.trajectories:
            for turn in trajectory.turns:
                done = turn.completion
                if not len(done.ids) == len(done.logprobs) == len(done.versions):
                    yield f"{trajectory.id}: turn {turn.id}: ids, logprobs and versions differ in number"
                elif not np.isfinite(done.logprobs).all() or (done.logprobs > 1e-4).any():
                    yield f"{trajectory.id}: turn {turn.id}: a logprob is no logprob"
                elif len(done.versions) and done.versions.max() >= step:
                    yield f"{trajectory.id}: turn {turn.id}: sampled by version {done.versions.max()}, which came later"
                elif (np.diff(done.versions[done.versions != GIVEN]) < 0).any():
                    yield f"{trajectory.id}: turn {turn.id}: versions go backwards"


def _credit(config: Config) -> BatchCredit:
    if config.trainer.control == "rejection_sampling":
        return each(accepted_only)
    return shaped(make_credit(config), config)


def _same(told: Any, again: Any) -> bool:
    if told is None or again is None:
        return told is again
    return math.isclose(float(told), float(again), rel_tol=1e-6, abs_tol=1e-9)


def _check_strays(folder: RunFolder, ledger: Mapping[int, Any], found: Found) -> None:
    names = {f"step-{step:05d}.jsonl" for step in ledger}
    for path in sorted(folder.trajectories.glob("step-*.jsonl")):
        if path.name not in names:
            found.wrong(f"trajectories/{path.name}: the ledger has no such step")
    for path in sorted(folder.trajectories.glob("eval-*.jsonl")):
        try:
            for _ in read_trajectories(path):
                pass
        except DataError as e:
            found.wrong(str(e))


def _check_checkpoints(
    folder: RunFolder, config: Config, ledger: Mapping[int, Sequence[Mapping[str, Any]]], found: Found
) -> None:
    for path in list_checkpoints(folder.checkpoints):
        try:
            state = load_state(path)
            check_checkpoint(path)
        except Exception as e:
            found.wrong(f"checkpoints/{path.name}: cannot be read: {e}")
            continue
        pipeline, step = state.get("pipeline"), int(state["step"])
        if pipeline is None or step > len(ledger):
            continue
        ended = {row["task"] for at in range(1, step + 1) for row in ledger[at]}
        flying = {row[0] for row in pipeline["in_flight"]}
        if both := ended & flying:
            found.wrong(f"checkpoints/{path.name}: {len(both)} tasks have ended and are to be played again")
        if (asked := pipeline["frontier"]["position"]) != len(ended | flying):
            missing = asked - len(ended | flying)
            found.wrong(f"checkpoints/{path.name}: {missing} of {asked} tasks have neither ended nor will be played")
    model = folder.model
    if model.is_dir():
        try:
            check_model(model)
            load_tokenizer(str(model))
        except Exception as e:
            found.wrong(f"model: cannot be read: {e}")


def _check_summary(folder: RunFolder, steps: int, found: Found) -> None:
    path = folder.path / "summary.json"
    if not path.is_file():
        found.figures["finished"] = False
        return
    try:
        summary = json.loads(path.read_text())
        told = int(summary["steps"])
    except (ValueError, KeyError, TypeError) as e:
        found.wrong(f"summary.json: cannot be read: {e}")
        return
    found.figures["finished"] = True
    if told != steps:
        found.wrong(f"summary.json: says {told} steps, the ledger has {steps}")


def _figures(
    config: Config, ledger: Mapping[int, Any], metrics: Mapping[int, Mapping[str, Any]], totals: Counter[str]
) -> dict[str, Any]:
    kept = max(1, totals["sampled_tokens"] - totals["masked_tokens"])
    return {
        "steps": len(ledger),
        "groups": {outcome: totals[outcome] for outcome in OUTCOMES},
        "trajectories": totals["trajectories"],
        "sampled_tokens": totals["sampled_tokens"],
        "max_staleness": config.rollout.max_staleness,
        "staleness_max": totals["staleness_max"],
        "staleness_mean": totals["staleness_sum"] / kept,
        "masked": totals["masked_tokens"] / max(1, totals["sampled_tokens"]),
        "faults": {name[6:]: count for name, count in totals.items() if name.startswith("fault/")},
        "success": [metrics[step].get("success") for step in (min(metrics), max(metrics))] if metrics else [],
    }
