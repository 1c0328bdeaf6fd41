"""How each group ended: one row a group, exactly once."""

from __future__ import annotations

from collections.abc import Sequence

from agentgym.trainers.batch import Rows, build_rows
from agentgym.types import Floats, Group


def teaches(credit: Sequence[Sequence[Floats]]) -> bool:
    """Whether any token of a group gets an advantage."""
    return any(advantage.any() for trajectory in credit for advantage in trajectory)


def group_outcome(group: Group, credit: Sequence[Sequence[Floats]], *, version: int, max_staleness: int) -> str:
    """`unscored`: fewer than two scored episodes; `filtered`: no differences to learn from; `stale`: every token too
    old; else `trained`."""
    if sum(t.reward is not None for t in group.trajectories) < 2:
        return "unscored"
    if not teaches(credit):
        return "filtered"
    rows: Rows = build_rows([group], [credit], version=version, max_staleness=max_staleness)
    return "trained" if any(row.trained for row in rows.rows) else "stale"
