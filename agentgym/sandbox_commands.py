"""`agentgym sandbox`: what this machine can hold, whether it holds, and how fast. Part of the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agentgym.errors import ConfigError
from agentgym.report.summary import write_json

if TYPE_CHECKING:
    from agentgym.sandboxes.probes import Row

sandbox_app = typer.Typer(
    name="sandbox", no_args_is_help=True, help="Where untrusted code runs: check, probe, measure."
)

BackendOption = Annotated[
    str, typer.Option("--backend", help="local, landlock, docker, e2b, or [bold]path.py:Class[/].")
]
ImageOption = Annotated[str | None, typer.Option("--image", help="Image of the docker backend's containers.")]
IsolationOption = Annotated[
    str | None, typer.Option("--isolation", help="Tier of the local backend: namespaces or landlock.")
]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")]
COLOURS = {"contained": "green", "ok": "green", "escaped": "bold red", "failed": "bold red", "na": "dim"}
BEGIN, END = "<!-- probes: begin -->", "<!-- probes: end -->"


@sandbox_app.command("doctor")
def doctor(as_json: Annotated[bool, typer.Option("--json", help="As a JSON object.")] = False) -> None:
    """What this machine offers to sandboxes, and which backends really make a session here."""
    from agentgym.sandboxes.doctor import examine

    found = asyncio.run(examine())
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found["machine"].items():
        told = {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
        print(f"{name.replace('_', ' '):<16} {told}")
    print()
    told_remedies: list[str] = []
    for name, how in found["backends"].items():
        if how["works"]:
            told = f"works: isolation {how['isolation']}, memory held by {how['memory']}, network {how['network']}"
        else:
            why, _, remedies = how["why"].partition("\n")
            told = f"no: {why}"
            if remedies in told_remedies:  # those of local and landlock
                remedies = ""
            told_remedies.append(remedies)
            told += f"\n{remedies}" if remedies else ""
        print(f"{name:<16} {told}")


@sandbox_app.command("probe")
def probe(
    backend: BackendOption = "local",
    image: ImageOption = None,
    isolation: IsolationOption = None,
    to_json: JsonOption = None,
    only: Annotated[str, typer.Option("--only", help="Numbers, as 1,5-9.")] = "",
    markdown: Annotated[
        Path | None, typer.Option("--markdown", help="Put the table into this file, between its two probe marks.")
    ] = None,
) -> None:
    """Attempt to get out, in 48 groups of ways; each has a control that shows the attempt works unsandboxed.

    Exits with 1 where something escaped, or where a control failed and its probe therefore shows nothing.
    """
    from agentgym.sandboxes.backends import make_backend
    from agentgym.sandboxes.probes import run_probes

    if markdown is not None and not _marked(markdown):
        raise ConfigError(f"--markdown {markdown}: no such file with the lines {BEGIN} and {END}")
    numbers, console = parse_numbers(only), Console()
    options = {name: value for name, value in (("image", image), ("isolation", isolation)) if value}

    async def run() -> list[Row]:
        made = make_backend(backend, **options)
        try:
            with console.status("") as status:
                return await run_probes(
                    made,
                    name=backend,
                    options=options,
                    only=numbers,
                    on_row=lambda row: status.update(f"{row.probe} {row.name}"),
                )
        finally:
            await made.aclose()

    rows = asyncio.run(run())
    console.print(_table(backend, rows))
    console.print(_sum(rows))
    if to_json is not None:
        write_json(to_json, {"backend": backend, "rows": [asdict(row) for row in rows]})
    if markdown is not None:
        before, rest = markdown.read_text().split(BEGIN)
        after = rest.split(END)[1]
        markdown.write_text(f"{before}{BEGIN}\n{_markdown(backend, rows)}{END}{after}")
    if any(row.bad for row in rows):
        raise typer.Exit(1)


def parse_numbers(text: str) -> set[int]:
    """`1,5-9` -> {1, 5, 6, 7, 8, 9}; the empty text -> none, which means all."""
    numbers: set[int] = set()
    for part in filter(None, (word.strip() for word in text.split(","))):
        first, _, last = part.partition("-")
        if not (first.isdigit() and (last or first).isdigit()):
            raise ConfigError(f"--only {text!r}: {part!r} is no number or range, as 1,5-9")
        numbers |= set(range(int(first), int(last or first) + 1))
    return numbers


def _marked(path: Path) -> bool:
    return path.is_file() and path.read_text().count(BEGIN) == 1 and path.read_text().count(END) == 1


def _table(backend: str, rows: Sequence[Row]) -> Table:
    table = Table(title=f"probes of {backend}", title_justify="left", expand=False)
    table.add_column("#", justify="right")
    for name in ("attempt", "inside", "control", "how it ended"):
        table.add_column(name, overflow="fold")
    for row in rows:
        told = row.detail if not row.reason else f"{row.detail}\n{row.reason}".strip()
        marks = (Text(mark, style=COLOURS[mark]) for mark in (row.status, row.control))
        table.add_row(str(row.probe), Text(row.name), *marks, Text(told, style="dim"))
    return table


def _sum(rows: Sequence[Row]) -> Text:
    contained = sum(row.status == "contained" for row in rows)
    escaped = [row.probe for row in rows if row.status == "escaped"]
    failed = [row.probe for row in rows if row.control == "failed"]
    said = f"{contained} of {len(rows)} contained"
    said += f"; escaped: {escaped}" if escaped else ""
    said += f"; control failed: {failed}" if failed else ""
    return Text(said, style="bold red" if escaped or failed else "bold green")


def _markdown(backend: str, rows: Sequence[Row]) -> str:
    lines = [f"| # | attempt | {backend} | control |", "|---:|---|---|---|"]
    lines += [f"| {row.probe} | {row.name} | {row.status} | {row.control} |" for row in rows]
    return "\n".join(lines) + "\n"


@sandbox_app.command("bench")
def bench(
    backend: BackendOption = "local",
    image: ImageOption = None,
    isolation: IsolationOption = None,
    to_json: JsonOption = None,
    sessions: Annotated[int, typer.Option("--sessions", min=1, help="New sessions to measure.")] = 100,
    calls: Annotated[int, typer.Option("--calls", min=1, help="Calls of one session.")] = 2000,
    ends: Annotated[int, typer.Option("--ends", min=1, help="Ends of each hostile kind.")] = 10,
) -> None:
    """Measure new sessions, calls of a session, and how soon nothing is left of what does not want to end."""
    from agentgym.sandboxes.backends import make_backend
    from agentgym.sandboxes.bench import bench as measure

    console = Console()
    options = {name: value for name, value in (("image", image), ("isolation", isolation)) if value}

    async def run() -> dict[str, Any]:
        made = make_backend(backend, **options)
        try:
            with console.status("") as status:
                return await measure(made, sessions=sessions, calls=calls, ends=ends, note=status.update)
        finally:
            await made.aclose()

    figures = asyncio.run(run())
    console.print(_figures(backend, figures))
    console.print(Text(f"CPU: {figures['cpu_counted']}", style="dim"))
    if to_json is not None:
        write_json(to_json, {"backend": backend, **figures})


def _figures(backend: str, figures: dict[str, Any]) -> Table:
    table = Table(title=f"{backend}, milliseconds", title_justify="left")
    table.add_column("")
    for name in ("p50", "p99", "most", "CPU", "a second"):
        table.add_column(name, justify="right")

    def add(name: str, times: dict[str, float], cpu: float | None = None, per_s: float | None = None) -> None:
        more = ("" if cpu is None else f"{cpu:.2f}", "" if per_s is None else f"{per_s:.0f}")
        table.add_row(name, *(f"{times[key]:.2f}" for key in ("p50", "p99", "most")), *more)

    made, called = figures["session"], figures["exec"]
    add("new session", made["create_ms"], made["cpu_ms"], made["per_s"])
    add("its end", made["close_ms"])
    add("call", called["call_ms"], called["cpu_ms"], called["per_s"])
    for name, times in figures["end"].items():
        add(f"end of a {name}", times)
    return table


@sandbox_app.command("build")
def build(
    dockerfile: Annotated[str, typer.Argument(metavar="DOCKERFILE_OR_FOLDER", help="What to build an image from.")],
    tag: Annotated[str | None, typer.Option("--tag", help="A name for it; none: one by its content.")] = None,
) -> None:
    """Build the image of a docker sandbox and print its tag; content that was built before is not built again.

    \b
    agentgym sandbox build tasks/17
    agentgym sandbox build Dockerfile --tag mine:1   # then --sandbox.image=mine:1
    """
    from agentgym.sandboxes.docker import DockerBackend

    async def run() -> str:
        backend = DockerBackend()
        try:
            return await backend.build(dockerfile, tag)
        finally:
            await backend.aclose()

    print(asyncio.run(run()))
