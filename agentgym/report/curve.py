"""The picture of a run: curve.png, drawn from its metrics.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentgym.run_folder import RunFolder

COLORS = ("#2563eb", "#d97706", "#059669", "#db2777", "#7c3aed", "#0891b2", "#65a30d", "#dc2626")
INK, FAINT = "#1f2937", "#9ca3af"
SMOOTH = 5
"""Steps of the running mean that the strong lines show; the faint ones are the steps themselves."""


@dataclass(slots=True)
class History:
    """What a run's metrics say: steps, a series by name, and the evaluations before, during and after."""

    steps: list[int] = field(default_factory=list)
    reward: list[float | None] = field(default_factory=list)
    kinds: dict[str, list[float | None]] = field(default_factory=dict)
    evaluations: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    during: list[tuple[int, float]] = field(default_factory=list)
    """(step, sampled success) of evaluations while training went on."""

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> History:
        history = cls(evaluations={row["eval"]: row for row in rows if row.get("eval", "during") != "during"})
        meanwhile = {row["step"]: row["sampled"] for row in rows if row.get("eval") == "during"}
        history.during = [(step, rate) for step, rate in sorted(meanwhile.items()) if rate is not None]
        trained = {row["step"]: row for row in rows if "reward/mean" in row}  # a step done again counts once
        names = sorted({key for row in trained.values() for key in row if key.startswith("success/")})
        history.steps = sorted(trained)
        history.reward = [trained[step]["reward/mean"] for step in history.steps]
        history.kinds = {name.partition("/")[2]: [trained[step].get(name) for step in history.steps] for name in names}
        return history

    def evaluated(self, when: str, name: str, mode: str = "") -> float | None:
        """Success at an evaluation: `name` is a kind, a tag, or "sampled" or "greedy" for all of it."""
        row = self.evaluations.get(when, {})
        if name in ("sampled", "greedy"):
            value = row.get(name)
        else:
            value = {**row.get(f"{mode}by_tag", {}), **row.get(f"{mode}by_kind", {})}.get(name)
        return float(value) if isinstance(value, int | float) else None


def draw_curve(folder: RunFolder) -> Path | None:
    """Draw `curve.png` from the metrics so far; None where no step and no evaluation has been recorded."""
    history = History.of(folder.rows("metrics.jsonl"))
    if not history.steps and not history.evaluations:
        return None
    figure = _figure(history, _title(folder))
    return folder.write_file("curve.png", lambda path: figure.savefig(path, format="png", dpi=150))


def _title(folder: RunFolder) -> str:
    config = folder.load_config()
    control = "" if config.trainer.control == "none" else f" · control: {config.trainer.control}"
    return f"{', '.join(env.label for env in config.all_envs)} · seed {config.run.seed}{control}"


def _figure(history: History, title: str) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = 2 if history.kinds else 1  # an env without kinds has nothing for the second
    figure = Figure(figsize=(11 if panels == 2 else 6, 4.6), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    left, *rest = figure.subplots(1, panels, sharex=True, squeeze=False)[0]
    figure.suptitle(title, fontsize=13, color=INK, x=0.01, ha="left")
    end = history.steps[-1] if history.steps else 0
    _draw_reward(left, history, end)
    for right in rest:
        _draw_kinds(right, history, end)
    for axes in (left, *rest):
        _style(axes, end)
    return figure


def _draw_reward(axes: Any, history: History, end: int) -> None:
    axes.set_title("Reward in training, success on held-out tasks", fontsize=10.5, loc="left", color=INK)
    _line(axes, history.steps, history.reward, COLORS[0], "mean reward of a step")
    for mode, marker, color, above in (("sampled", "o", COLORS[2], -15), ("greedy", "D", COLORS[1], 8)):
        points = [(x, history.evaluated(w, mode)) for w, x in (("before", 0), ("after", end))]
        known = [(x, y) for x, y in points if y is not None]
        if history.during and mode == "sampled":
            axes.plot(*zip(*history.during, strict=True), marker, ms=4, color=color)
        if known:
            axes.plot(*zip(*known, strict=True), marker, ms=7, color=color, label=f"held out, {mode}")
            for x, y in known:
                axes.annotate(f"{y:.2f}", (x, y), (0, above), textcoords="offset points", ha="center", color=color)
    axes.legend(loc="lower right", frameon=False, fontsize=9)


def _draw_kinds(axes: Any, history: History, end: int) -> None:
    axes.set_title("Success by kind (points: held out, sampled)", fontsize=10.5, loc="left", color=INK)
    names = list(history.kinds) or sorted(
        {name for row in history.evaluations.values() for name in {**row.get("by_kind", {}), **row.get("by_tag", {})}}
    )
    for i, name in enumerate(names):
        color = COLORS[i % len(COLORS)]
        _line(axes, history.steps, history.kinds.get(name, []), color, name.replace("_", " "))
        for when, x in (("before", 0), ("after", end)):
            rate = history.evaluated(when, name)
            if rate is not None:
                axes.plot([x], [rate], "o", ms=7, color=color, mec="white", zorder=3)
    if names:
        axes.legend(loc="lower right", frameon=False, fontsize=9)


def _line(axes: Any, steps: Sequence[int], values: Sequence[float | None], color: str, label: str) -> None:
    known = [(x, float(y)) for x, y in zip(steps, values, strict=False) if y is not None]
    x, y = [p[0] for p in known], [p[1] for p in known]
    axes.plot(x, y, color=color, alpha=0.22, lw=1)
    axes.plot(x, running_mean(y, SMOOTH), color=color, lw=2, label=label)


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """The mean of each value and its neighbours, `width` in all, fewer at the ends."""
    half = width // 2
    parts = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in parts]


def _style(axes: Any, end: int) -> None:
    low, high = axes.get_ylim()
    axes.set_ylim(min(-0.02, low), max(1.08, high))
    axes.set_xlim(-max(1, end) * 0.04, max(1, end) * 1.06)
    axes.set_xlabel("learner step", color=INK)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y", color=FAINT, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK)
