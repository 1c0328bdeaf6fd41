"""What becomes of rows above the budget of a micro-batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agentgym.errors import DataError
from agentgym.trainers.batch import Row


def within(rows: Sequence[Row], budget: int, what: str, note: Callable[[str], None]) -> tuple[list[Row], int]:
    """The rows to train, and how many are above the budget; those are named. what: `alone`, `drop` or `refuse`, for
    which it raises `DataError`."""
    above = [row for row in rows if len(row.ids) > budget]
    if not above:
        return list(rows), 0
    named = ", ".join(f"{row.source or 'a row'} ({len(row.ids)} tokens)" for row in above[:3])
    told = f"{named}{' and others' if len(above) > 3 else ''}: above learner.tokens_per_microbatch = {budget}"
    if what == "refuse":
        raise DataError(f"{told}; raise it, or set learner.long_rows to alone or drop")
    note(f"{told}: {'left out' if what == 'drop' else 'trained alone'}")
    return [row for row in rows if what != "drop" or len(row.ids) <= budget], len(above)
