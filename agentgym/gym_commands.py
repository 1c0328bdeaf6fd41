"""`agentgym validate`, `rescore` and `new-env`: the commands about environments. Part of the command line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agentgym.errors import ConfigError, UserError
from agentgym.registry import env_ids
from agentgym.report.summary import write_json

if TYPE_CHECKING:
    from agentgym.envs.validate import Report

SHARES = 10
"""Adapted envs are validated by tenths, another one each day."""


def validate(
    env: Annotated[list[str] | None, typer.Argument(help="Environments: ids, or path.py:name.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every registered id; of adapted ones a tenth, by day.")] = False,
    all_adapters: Annotated[bool, typer.Option("--all-adapters", help="With --all: every adapted one too.")] = False,
    share: Annotated[
        int | None, typer.Option("--share", min=0, max=SHARES - 1, help="With --all: this tenth of the adapted ones.")
    ] = None,
    tasks: Annotated[int, typer.Option("--tasks", min=1, help="Tasks that gold plays; a sixth with sandboxes.")] = 24,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the episodes.")] = 0,
    args: Annotated[
        list[str] | None, typer.Option("--arg", metavar="NAME=VALUE", help="An argument of the env; may be repeated.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings are failures.")] = False,
    to_json: Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write by id; - is stdout.")] = None,
) -> None:
    """Whether environments' rewards can be trusted: gold, cheap and hostile players, determinism, leaks.

    \b
    agentgym validate mine.py:MyEnv
    agentgym validate agentgym/Store-v0 --arg busy=0.5 --json out.json
    agentgym validate --all                # every registered id, of adapted ones today's tenth

    Exit code: 0; 1 where a check fails; 2 for what you can mend.
    """
    from agentgym.envs.validate import Finding, Report
    from agentgym.envs.validate import validate as run

    chosen = _chosen(env or [], every, all_adapters, share)
    given, console = _arguments(args or []), Console(stderr=to_json == "-")
    reports: list[Report] = []
    for name in chosen:
        with console.status(Text(f"{name} ({len(reports) + 1} of {len(chosen)})")):
            try:
                reports.append(run(name, args=given, tasks=tasks, seed=seed, strict=strict))
            except UserError as e:
                if len(chosen) == 1:
                    raise
                reports.append(Report(name, {"check_env": Finding(False, f"cannot be made: {e}")}, (), strict))
    console.print(_table(reports))
    for report in reports:
        if told := report.told():
            console.print(Text.assemble((report.id, "bold cyan"), "\n", told), soft_wrap=True)
    figures = {report.id: report.to_json() for report in reports}
    if to_json == "-":
        print(json.dumps(figures, indent=2, default=str))
    elif to_json is not None:
        write_json(Path(to_json), figures)
    if not all(report.ok for report in reports):
        raise typer.Exit(1)


def _chosen(given: Sequence[str], every: bool, all_adapters: bool, share: int | None) -> list[str]:
    if every == bool(given):
        raise ConfigError("which environments? name some (ids, or path.py:name), or give --all")
    if not every and (all_adapters or share is not None):
        raise ConfigError("--all-adapters and --share go with --all")
    if not every:
        return list(dict.fromkeys(given))
    known = env_ids()
    adapted = [env_id for env_id in known if is_adapted(env_id)]
    today = int(time.time() // 86_400) % SHARES if share is None else share
    shown = adapted if all_adapters else adapted[today::SHARES]
    return [env_id for env_id in known if not is_adapted(env_id) or env_id in shown]


def is_adapted(env_id: str) -> bool:
    """Whether an id is of another gym's env: `agentgym/GYM.NAME-v0`."""
    return env_id.startswith("agentgym/") and "." in env_id


def _arguments(given: Sequence[str]) -> dict[str, Any]:
    """`busy=0.5` -> {"busy": 0.5}; what is no JSON is a text."""
    found: dict[str, Any] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"--arg {item!r}: expected NAME=VALUE")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _table(reports: Sequence[Report]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("environment", style="cyan", overflow="fold")
    for name in ("verdict", "holds", "fails", "says nothing", "warnings"):
        table.add_column(name)
    table.add_column("s", justify="right")
    for report in reports:
        named = {value: [name for name, f in report.findings.items() if f.value is value] for value in (True, False)}
        nothing = [name for name, finding in report.findings.items() if finding.value == "na"]
        table.add_row(
            Text(report.id),
            Text("ok", "green") if report.ok else Text("FAILS", "bold red"),
            f"{len(named[True])} of {len(report.findings)}",
            Text(", ".join(named[False]), "red"),
            Text(", ".join(nothing), "dim"),
            str(len(report.warnings) or ""),
            f"{report.seconds:.1f}",
        )
    return table


COMMANDS: dict[str, Callable[..., None]] = {"validate": validate}
