"""`agentgym validate`, `rescore` and `new-env`: the commands about environments. Part of the command line."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agentgym.errors import ConfigError, DataError, RunError, UserError
from agentgym.registry import adapter_ids, env_ids
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
    agentgym validate --all              # of adapted ids today's tenth

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
    adapted = adapter_ids()
    today = int(time.time() // 86_400) % SHARES if share is None else share
    return [*env_ids(), *(adapted if all_adapters else adapted[today::SHARES])]


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


def rescore(
    paths: Annotated[list[str], typer.Argument(metavar="TRAJECTORIES", help="JSONL files, or runs' folders.")],
    env: Annotated[str | None, typer.Option("--env", help="Another env: an id, or path.py:name.")] = None,
    reward: Annotated[str | None, typer.Option("--reward", help="Another reward, as path.py:function.")] = None,
    data: Annotated[str | None, typer.Option("--data", help="JSONL file of the tasks.")] = None,
    args: Annotated[
        list[str] | None, typer.Option("--arg", metavar="NAME=VALUE", help="An argument of the env; may be repeated.")
    ] = None,
    how: Annotated[str, typer.Option("--how", help="auto, messages or replay.")] = "auto",
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write the rows, scored anew.")] = None,
    to_json: Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write figures; - is stdout.")] = None,
) -> None:
    """Score stored episodes anew, by today's reward or another one, without playing.

    \b
    agentgym rescore runs/store-v0-20260801-120000
    agentgym rescore step-00012.jsonl --reward mine.py:score --out again.jsonl

    From the messages alone where the reward asks for nothing else; else they are played again in the env, with the
    stored seed, and it has to answer as it did. What can be scored in neither way is counted, and unscored in --out.
    Exit code: 0; 1 where nothing could be rescored; 2 for what you can mend.
    """
    from agentgym.envs.rescore import Tally
    from agentgym.evals.stored import trajectory_files

    if how not in ("auto", "messages", "replay"):
        raise ConfigError(f"--how {how}: choose auto, messages or replay")
    files = [file for path in paths for file in trajectory_files(path)]
    if out is not None and out.resolve() in [file.resolve() for file in files]:
        raise ConfigError(f"--out {out}: this is what is being read; give another file")
    given = {"env": env or "", "data": data or "", "reward": reward or "", "args": _arguments(args or [])}
    tally = Tally()
    rows = (row for file in files for row in _rescored(file, given, tally, how))
    if out is None:
        deque(rows, maxlen=0)
    else:
        _write_rows(out, rows)
    figures = tally.to_json()
    if to_json != "-":
        _tell(figures)
    if to_json == "-":
        print(json.dumps(figures, indent=2))
    elif to_json is not None:
        write_json(Path(to_json), figures)
    if not figures["rescored"]:
        raise typer.Exit(1)


def _rescored(file: Path, given: Mapping[str, Any], tally: Any, how: Any) -> Iterator[dict[str, Any]]:
    from agentgym.envs.rescore import rescore as run
    from agentgym.evals.stored import config_beside, env_maker, stored_rows

    at = [str(file)]

    def rows() -> Iterator[dict[str, Any]]:
        for at[0], row in stored_rows([file]):
            yield row

    try:
        yield from run(rows(), env_maker(config_beside(file), **given), tally, how=how)
    except (ValueError, TypeError, AttributeError) as e:
        raise DataError(f"{at[0]}: not a trajectory: {e}") from None


def _write_rows(out: Path, rows: Iterator[dict[str, Any]]) -> None:
    from agentgym.rollout.record import to_line

    staging = out.with_name(f"{out.name}.tmp")
    try:
        with open(staging, "wb") as file:
            file.writelines(to_line(row) for row in rows)
        os.replace(staging, out)
    except OSError as e:
        raise RunError(f"{out}: cannot be written: {e.strerror or e}") from None
    finally:
        staging.unlink(missing_ok=True)


def _tell(figures: Mapping[str, Any]) -> None:
    by = ", ".join(f"{count:,} by {how}" for how, count in figures["by"].items())
    print(f"{figures['rescored']:,} of {figures['rows']:,} episodes rescored{f': {by}' if by else ''}")
    print(f"{figures['changed']:,} rewards changed: {figures['up']:,} up, {figures['down']:,} down", end="")
    print(f"; {figures['outcome_changed']:,} outcomes; {figures['newly_scored']:,} scored for the first time")
    if figures["mean_before"] is not None:
        print(f"mean reward {figures['mean_before']:.4f} -> {figures['mean_after']:.4f}")
    for reason, count in figures["reasons"].items():
        print(f"not rescored: {count:,}: {reason}")


def new_env(
    name: Annotated[str, typer.Argument(help="Its name, such as my-shop.")],
    folder: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="Where to; made where it is not there.")
    ] = Path(),
) -> None:
    """Begin an environment of your own: one file with tools, tasks, reward and gold, and one with its test."""
    from agentgym.scaffold import new_env as write

    env, test = write(name, folder)
    print(f"{env} and {test} are written. Next:")
    print(f"  pytest {test}")
    print(f"  agentgym validate {env}:{env.stem}")
    print(f"  agentgym train --env {env}:{env.stem}")


COMMANDS: dict[str, Callable[..., None]] = {"validate": validate, "rescore": rescore, "new-env": new_env}
