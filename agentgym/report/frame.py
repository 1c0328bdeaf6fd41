"""One frame of the live view: lines of text that fit the terminal, whatever its size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from agentgym.report.progress import Progress, Stage, duration, figure
from agentgym.report.transcript import conversation_lines, verdict
from agentgym.types import Trajectory

BLOCKS = " ▁▂▃▄▅▆▇█"
CHART_ROWS = 8
KINDS_WIDTH = 34
NARROW = 80
"""Columns below which chart and kinds stand one above the other."""


@dataclass(frozen=True, slots=True)
class View:
    """What a frame shows, and the room it has (columns and rows of the terminal)."""

    progress: Progress
    episode: Trajectory | None
    width: int
    height: int


def draw(view: View) -> Text:
    """The frame. Parts that do not fit are left out from the bottom: the episode first, then the chart."""
    width, room = max(20, view.width - 1), max(3, view.height - 1)
    lines = _shortened(list(_stage_lines(view.progress, width)), room)
    if view.progress.rewards:
        charts = _charts(view.progress, width)
        if len(lines) + len(charts) + 1 <= room:
            lines += ["", *charts]
    if view.episode is not None:
        left = room - len(lines) - 2
        if left >= 3:
            lines += ["", *_episode_lines(view.episode, width, left)]
    return _joined(lines, width)


def _joined(lines: Sequence[Text | str], width: int) -> Text:
    whole = Text(no_wrap=True, overflow="ellipsis", end="")
    for i, line in enumerate(lines):
        text = line if isinstance(line, Text) else Text(line)
        text.truncate(width, overflow="ellipsis")
        whole.append("\n" if i else "")
        whole.append_text(text)
    return whole


def _shortened(lines: list[Text | str], room: int) -> list[Text | str]:
    """The stages under way matter more than those long over."""
    return lines if len(lines) <= room else lines[len(lines) - room :]


# ---- stages ----


def _stage_lines(progress: Progress, width: int) -> Iterator[Text | str]:
    now = progress.now()
    for stage in progress.stages:
        if stage.ended is not None:
            yield Text.assemble(
                ("✓ ", "green"), f"{stage.name:<17}", (f"{duration(stage.seconds(now)):>6}  ", "dim"), *_fields(stage)
            )
        else:
            yield from _running(progress, stage, now, width)


def _running(progress: Progress, stage: Stage, now: float, width: int) -> Iterator[Text]:
    head = Text.assemble(("▶ ", "bold cyan"), (f"{stage.name:<17}", "bold"), f"{duration(stage.seconds(now)):>6}  ")
    if stage.total:
        done = f" {stage.done:,}/{stage.total:,} {stage.unit}"
        eta = stage.eta(now)
        tail = f"{done}  {duration(eta)} to go" if eta is not None else done
        head.append_text(_bar(stage.done / stage.total, max(6, min(40, width - len(head) - len(tail) - 1))))
        head.append(tail)
    yield head
    figures = Text("  ").join(_figures(progress, stage))
    if figures:
        yield Text.assemble(" " * 4, figures)


def _figures(progress: Progress, stage: Stage) -> Iterator[Text]:
    for name, value in stage.fields.items():
        yield Text.assemble((f"{name} ", "dim"), figure(value))
    if stage.unit == "steps" and progress.pace is not None:
        yield Text.assemble(("speed ", "dim"), f"{progress.pace:.0f} trajectories/s")


def _fields(stage: Stage) -> Iterator[tuple[str, str]]:
    if stage.total and stage.done < stage.total and stage.fields:  # it was cut short
        yield f"{stage.done:,}/{stage.total:,} {stage.unit}  ", "dim"
    for name, value in stage.fields.items():
        yield f"{name} {figure(value)}  ", "dim"


def _bar(share: float, width: int) -> Text:
    full = round(max(0.0, min(1.0, share)) * width)
    return Text.assemble(("━" * full, "cyan"), ("┄" * (width - full), "bright_black"))


# ---- curves ----


def _charts(progress: Progress, width: int) -> list[Text | str]:
    total = next((s.total for s in reversed(progress.stages) if s.unit == "steps" and s.name == "train"), None)
    kinds = _kinds(progress.by_kind(), KINDS_WIDTH if width >= NARROW else width)
    if width < NARROW:
        return [*_chart(progress.rewards, total, min(width, 60)), *kinds]
    left = _chart(progress.rewards, total, min(width - KINDS_WIDTH - 3, 90))
    rows: list[Text | str] = []
    for i in range(max(len(left), len(kinds))):
        line = left[i].copy() if i < len(left) else Text()
        line.pad_right(max(0, min(width - KINDS_WIDTH - 3, 90) - line.cell_len))
        rows.append(Text.assemble(line, "   ", kinds[i] if i < len(kinds) else ""))
    return rows


def _chart(values: Sequence[float | None], total: int | None, width: int) -> list[Text]:
    """Mean reward by step, as wide as the whole training."""
    known = [value for value in values if value is not None]
    low, high = min(0.0, *known), max(known)
    high = 1.0 if low == 0.0 and high <= 1.0 else max(high, low + 1e-9)
    heights = [None if v is None else (v - low) / (high - low) for v in resample(values, total, width - 6)]
    rows = [Text(f"reward {known[-1]:.2f} (step {len(values)})", style="bold")]
    for row in reversed(range(CHART_ROWS)):
        edge = low + (high - low) * (row + 1) / CHART_ROWS
        label = (
            f"{edge:5.2f}" if row in (CHART_ROWS - 1, CHART_ROWS // 2 - 1) else f"{low:5.2f}" if not row else " " * 5
        )
        cells = "".join([BLOCKS[_eighths(height, row)] for height in heights])
        rows.append(Text.assemble((label + "▕", "dim"), (cells, "green")))
    return rows


def resample(values: Sequence[float | None], total: int | None, columns: int) -> list[float | None]:
    """Values over columns that stand for `total` steps: means where steps share one, None where none came yet."""
    steps = max(total or 0, len(values), 1)
    found: list[float | None] = []
    for column in range(columns):
        first = column * steps // columns
        last = max(first + 1, (column + 1) * steps // columns)
        part = [value for value in values[first:last] if value is not None]
        found.append(sum(part) / len(part) if part else None)
    return found


def _eighths(height: float | None, row: int) -> int:
    if height is None:
        return 0
    return max(0, min(8, round(height * CHART_ROWS * 8) - row * 8))


def _kinds(rates: Mapping[str, float], width: int) -> list[Text]:
    if not rates:
        return []
    names = min(16, max(len(name) for name in rates))
    room = max(4, min(20, width - names - 7))
    rows = [Text("success by kind", style="bold")]
    for name, rate in list(rates.items())[:CHART_ROWS]:
        rows.append(
            Text.assemble((f"{_cut(name, names):<{names}} ", "dim"), _bar(rate, room), f" {rate:.2f}"),
        )
    return rows


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


# ---- the episode ----


def _episode_lines(trajectory: Trajectory, width: int, room: int) -> list[Any]:
    title = Text.assemble(("an episode", "bold"), (f"  {trajectory.env_id} {trajectory.kind}".rstrip(), "dim"))
    end = Text("end    " + verdict(trajectory), style="green" if trajectory.outcome else "red")
    lines = conversation_lines(trajectory.messages, width)
    if len(lines) > room - 2:
        lines = [*lines[: room - 3], Text("…", style="dim")]
    return [title, *lines, end]
