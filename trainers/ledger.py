"""How each group ended: one row a group, exactly once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agentgym.protocols import BatchCredit
from agentgym.trainers.batch import Rows, build_rows
from agentgym.types import Floats, Group


def could_teach(credit: BatchCredit, group: Group) -> bool:
    """Whether a group gets an advantage in a batch with others; judged when it arrives, and its batch is not there yet.

    So it is put beside its like that was paid one more: credit over the batch finds no difference in a group by itself
    that has none within, though it will in the batch. To credit of single groups the other means nothing.
    """
    paid = (replace(t, reward=None if t.reward is None else t.reward + 1.0) for t in group.trajectories)
    other = replace(group, trajectories=tuple(paid))
    return teaches(credit([group, other])[0])


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
