"""How each group ended: one row a group, exactly once."""

from __future__ import annotations

from collections.abc import Sequence

from agentgym.trainers.batch import Rows, build_rows
from agentgym.types import Floats, Group


def teaches(credit: Sequence[Sequence[Floats]]) -> bool:
    """Whether any token of a group gets an advantage."""
    return any(advantage.any() for trajectory in credit for advantage in trajectory)


def group_outcome(group: Group, credit: Sequence[Sequence[Floats]], *, version: int, max_staleness: int) -> str:
    """`unscored`: nothing to learn from, as fewer than two episodes are scored; `filtered`: nothing, as they do not
    differ; `stale`: every token too old; else `trained`."""
    if not teaches(credit):
        return "unscored" if sum(t.reward is not None for t in group.trajectories) < 2 else "filtered"
    rows: Rows = build_rows([group], [credit], version=version, max_staleness=max_staleness)
    return "trained" if any(row.trained for row in rows.rows) else "stale"
