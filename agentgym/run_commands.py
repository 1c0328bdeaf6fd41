"""`agentgym check-run`: the command about finished and stopped runs. Part of the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from agentgym.report.summary import write_json

SHOWN = 20
"""Problems that are told; the JSON has all."""


def check_run(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder.")],
    to_json: Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write figures; - is stdout.")] = None,
) -> None:
    """Hold a run's folder against itself.

    \b
    agentgym check-run runs/store-v0-20260801-120000

    Every task has ended exactly once, none was skipped; how each group ended, the age of every trained token and the
    figures of every step are computed again from the stored trajectories; files are whole.
    Exit code: 0; 1 where something is off; 2 where there is no run.
    """
    from agentgym.trainers.check_run import check_run as check

    found = check(run)
    report = {"ok": not found.problems, **found.figures, "problems": found.problems}
    if to_json == "-":
        print(json.dumps(report, indent=2))
    else:
        _tell(found.figures, found.problems)
        if to_json is not None:
            write_json(Path(to_json), report)
    if found.problems:
        raise typer.Exit(1)


def _tell(figures: Mapping[str, Any], problems: list[str]) -> None:
    console = Console(highlight=False)
    for name, value in figures.items():
        if isinstance(value, dict):
            value = ", ".join(f"{count} {what}" for what, count in value.items() if count) or "none"
        elif isinstance(value, list):
            value = " -> ".join("-" if item is None else f"{item:.3f}" for item in value) or "none yet"
        elif isinstance(value, float):
            value = f"{value:.4g}"
        console.print(f"{name.replace('_', ' '):<16} {value}", markup=False)
    for problem in problems[:SHOWN]:
        console.print(f"wrong: {problem}", markup=False, style="red", soft_wrap=True)
    if len(problems) > SHOWN:
        console.print(f"and {len(problems) - SHOWN} more (--json lists all)")
    if not problems:
        console.print("nothing is off", style="green")


COMMANDS: dict[str, Callable[..., None]] = {"check-run": check_run}
