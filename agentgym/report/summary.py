"""The figures of a run that a person asks for first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentgym.errors import RunError


def headline(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Rows for the end of a run, out of its summary.json: success before and after, by kind, and what it took."""
    rows: dict[str, Any] = {}
    before, after = summary.get("before") or {}, summary.get("after") or {}
    for mode in ("sampled", "greedy"):
        if after.get(mode) is not None:
            rows[f"success, {mode}"] = change(before.get(mode), after[mode])
    for group in ("by_kind", "by_tag"):
        for name, rate in (after.get(group) or {}).items():
            rows[f"  {name}"] = change((before.get(group) or {}).get(name), rate)
    rows["trajectories"] = summary.get("trajectories")
    rows["trajectories per CPU-second"] = summary.get("trajectories_per_cpu_s")
    rows["largest logprob gap"] = summary.get("logprob_gap_max")
    rows["unscored episodes"] = summary.get("unscored")
    for row in summary.get("warnings") or ():
        rows[f"reward and {row['component']} apart"] = f"{row['reward']:.2f}, {row['gold']:.2f} (step {row['step']})"
    return {name: value for name, value in rows.items() if value is not None}


def change(before: float | None, after: float) -> str:
    """0.2, 0.9 -> "0.20 -> 0.90"."""
    return f"{after:.2f}" if before is None else f"{before:.2f} -> {after:.2f}"


def write_json(path: Path, figures: Mapping[str, Any]) -> None:
    """Write figures to a file of the user's; `RunError` where that fails."""
    try:
        path.write_text(json.dumps(figures, indent=2) + "\n")
    except OSError as e:
        raise RunError(f"{path}: cannot be written: {e.strerror or e}") from None
