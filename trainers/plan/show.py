"""A plan for a person, and for a program."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agentgym.trainers.plan.remedies import remedies
from agentgym.trainers.plan.resolve import Plan
from agentgym.trainers.plan.rows import sections
from agentgym.trainers.plan.words import gib


def tell(console: Console, plan: Plan, best: Plan | None) -> None:
    """The whole plan, a section after the other. best: the split that is balanced."""
    for name, rows in sections(plan, best).items():
        console.print(Text(name, style="bold cyan"))
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True, width=26)
        table.add_column(overflow="fold")
        for key, value in rows.items():
            table.add_row(Text(f"  {key}"), Text(value))
        console.print(table)


def verdict(plan: Plan) -> str:
    """What does not fit, by how much, and what would help; empty where all fits."""
    if not plan.lacks:
        return ""
    said = "; ".join(
        f"{lack.part} needs {gib(lack.needs)} of {gib(lack.has)}, {gib(lack.over)} too much" for lack in plan.lacks
    )
    helps = remedies(plan)
    how = f"it fits with {', or with '.join(helps)}" if helps else "none of the usual changes makes it fit"
    return f"the plan does not fit: {said}. By the same plan {how}"


def figures(plan: Plan, best: Plan | None) -> dict[str, Any]:
    """Everything, in bytes and seconds."""
    layout, model, workers = plan.layout, plan.model, plan.config.rollout.workers
    return {
        "fits": not plan.lacks,
        "lacks": [asdict(lack) for lack in plan.lacks],
        "remedies": remedies(plan) if plan.lacks else [],
        "model": {name: getattr(model, name) for name in model.__slots__ if name not in ("config", "tensors")},
        "place": {**asdict(layout), "taken": layout.taken, "nodes": layout.nodes, "workers": workers},
        "batch": asdict(plan.batch),
        "learner_memory": {**asdict(plan.learner), "total": plan.learner.total},
        "engine_memory": {**asdict(plan.engine), "total": plan.engine.total},
        "seconds": _times(plan),
        "split": None if best is None else {**_counts(best), "seconds": _times(best)},
        "assumed": plan.config.plan.model_dump(),
    }


def _times(plan: Plan) -> dict[str, Any]:
    return {
        "learn": {**asdict(plan.learn), "total": plan.learn.total},
        "play": {**asdict(plan.play), "total": plan.play.total},
        "sync": asdict(plan.sync),
        "step": plan.step_seconds,
    }


def _counts(plan: Plan) -> dict[str, int]:
    return {"learner.ranks": plan.layout.ranks, "engine.replicas": plan.layout.replicas}
