"""An evaluation's report: a dict for JSON, and the same as tables and Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentgym.engines.endpoint import is_endpoint
from agentgym.evals.figures import env_figures, macro_figures
from agentgym.evals.plan import Evaluation
from agentgym.evals.rows import EvalRow
from agentgym.evals.tables import Table
from agentgym.report.progress import figure

WIDE = 3
"""More environments than this are rows of the table, not columns."""


def make_report(plan: Evaluation, rows: Sequence[EvalRow], folder: Path | None = None) -> dict[str, Any]:
    """The report of the episodes played. With one environment its figures stand at the top (`env_figures`), with
    several their mean (`macro_figures`); `envs` has those of each by name."""
    envs: dict[str, dict[str, Any]] = {}
    for env in plan.envs:
        own = [row for row in rows if row.env == env.name]
        figures = env_figures(own, env.ks, greedy=plan.greedy)
        envs[env.name] = {"env": env.id, "split": env.split, "samples": env.samples, "ks": list(env.ks), **figures}
    top = dict(next(iter(envs.values()))) if len(envs) == 1 else macro_figures(envs)
    report: dict[str, Any] = {
        "model": plan.path,
        "env": top.pop("env", None),
        "split": top.pop("split", None),
        **top,
        "seed": plan.seed,
        "temperature": 0.0 if plan.greedy else plan.temperature,
        "unscored_cause": unscored_cause(rows),
        "envs": envs,
    }
    if is_endpoint(plan.path):
        report["endpoint_model"] = plan.config.endpoint.model
    if folder is not None:
        report["folder"] = str(folder)
    return report


def unscored_cause(rows: Sequence[EvalRow]) -> str | None:
    """What was most often to blame for unscored episodes; None where all were scored."""
    causes = Counter(row.error or "unknown" for row in sorted(rows, key=lambda row: row.key) if not row.scored)
    return causes.most_common(1)[0][0] if causes else None


def report_tables(report: Mapping[str, Any], title: str = "held-out success") -> list[Table]:
    """The report for a person: the figures, and success by kind and tag; what was not measured is left out."""
    envs: Mapping[str, Mapping[str, Any]] = report.get("envs") or {report.get("env") or "": report}
    columns = {name or "tasks": figures for name, figures in envs.items()}
    if len(columns) > 1:
        columns["mean"] = report
    rows = [[name, *cells] for name, cells in _lines(columns) if any(cell != "-" for cell in cells)]
    table = Table(title, ["", *columns], rows)
    tables = [table.turned() if len(columns) > WIDE + 1 else table]
    for name, figures in envs.items():
        kinds = {
            label: rate
            for group in ("by_kind", "greedy_by_kind", "by_tag", "greedy_by_tag")
            for label, rate in (figures.get(group) or {}).items()
        }
        if kinds:
            heading = f"success by kind and tag{f', {name}' if len(envs) > 1 else ''}"
            tables.append(Table(heading, ["", "success"], [[k, percent(v)] for k, v in kinds.items()]))
    return tables


def _lines(columns: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    def line(label: str, show: Callable[[Any], str], key: str) -> tuple[str, list[str]]:
        return label, [show(figures.get(key)) for figures in columns.values()]

    found = {key for figures in columns.values() for key in figures if key.startswith(("pass@", "pass^"))}
    passes = sorted(found, key=lambda key: (key[4], int(key[5:])))
    return [
        line("success, mean over tasks", percent, "success"),
        line("  95% interval", _interval, "success_ci"),
        line("sampled", percent, "sampled"),
        line("greedy", percent, "greedy"),
        *(line(key, percent, key) for key in passes),
        line("tasks", figure, "tasks"),
        line("episodes", figure, "n"),
        line("unscored", figure, "unscored"),
        line("tokens per success", figure, "tokens_per_success"),
        line("tokens an episode", figure, "tokens"),
        line("turns", figure, "turns"),
        line("tool calls", figure, "tool_calls"),
        line("  of them failed", percent, "tool_failures"),
        line("seconds an episode", figure, "seconds"),
        line("stop reasons", _counts, "stop_reasons"),
        line("faults", _counts, "faults"),
    ]


def to_markdown(report: Mapping[str, Any], title: str = "Evaluation") -> str:
    """The report as a page."""
    model = report.get("endpoint_model") or ""
    facts = [
        f"- model: `{report.get('model')}`{f' ({model})' if model else ''}",
        f"- seed {report.get('seed')}, temperature {report.get('temperature')}",
    ]
    if cause := report.get("unscored_cause"):
        facts.append(f"- {report.get('unscored')} of {report.get('n')} episodes are unscored; most often: {cause}")
    tables = "\n".join(table.markdown() for table in report_tables(report, "Success on held-out tasks"))
    return f"# {title}\n\n" + "\n".join(facts) + f"\n\n{tables}"


def percent(rate: Any) -> str:
    return "-" if rate is None else f"{100 * rate:.1f}%"


def _interval(ends: Any) -> str:
    return "-" if not ends else f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}%"


def _counts(counts: Any) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) if counts else "-"
