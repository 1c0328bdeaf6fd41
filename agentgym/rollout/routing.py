"""Which experts are known of a branch's tokens: each turn is asked only for what the turns before it do not tell."""

from __future__ import annotations

from collections.abc import Sequence

from agentgym.types import Turn


def experts_known(turns: Sequence[Turn], parent: int | None, length: int) -> int:
    """Tokens at the beginning of a branch whose experts are known. `turns` by their ids; `length`: tokens of the branch
    up to the end of the turn `parent` (None: it begins)."""
    while parent is not None:
        turn = turns[parent]
        if turn.completion.experts is not None:
            return length - 1  # the last one sampled is run by the next turn
        length -= len(turn.context_ids) + len(turn.completion.ids)
        parent = turn.parent
    return 0
