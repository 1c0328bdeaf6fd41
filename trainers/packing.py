"""How rows become micro-batches: bins of bounded size, and shares of equal cost for the ranks."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from agentgym.trainers.batch import Row, micro_batches

Layout = Literal["packed", "padded"]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a row costs: its tokens, and what attention adds to them.

    `crossover` is the length at which attention costs as much as the blocks' matrices. A causal row of L tokens takes
    2 P L operations for the P weights of a block and 2 L^2 W for attention of width W: L (1 + L / crossover), with
    crossover = P / W.
    """

    crossover: float = 1e4

    def __call__(self, length: int) -> float:
        return length * (1 + length / self.crossover)


def cost_of(config: Any) -> Cost:
    """Of a transformers configuration."""
    text = config.get_text_config()
    hidden = int(text.hidden_size)
    width = int(text.num_attention_heads) * int(getattr(text, "head_dim", None) or hidden // text.num_attention_heads)
    experts = int(getattr(text, "num_experts_per_tok", None) or 0)
    inner = experts * int(getattr(text, "moe_intermediate_size", 0) or 0) or int(
        getattr(text, "intermediate_size", None) or 4 * hidden
    )
    return Cost((4 * hidden * width + 3 * hidden * inner) / width)


def bins(rows: Sequence[Row], budget: int) -> list[list[Row]]:
    """First fit decreasing: each row goes to the first bin with room for it, the longest first.

    Bins hold at most `budget` tokens; a row above it has a bin of its own. Within a bin rows are in descending length.
    """
    found: list[list[Row]] = []
    free = np.zeros(max(1, len(rows)), np.int64)
    for row in sorted(rows, key=lambda row: -len(row.ids)):
        fits = np.nonzero(free[: len(found)] >= len(row.ids))[0]
        if len(fits):
            found[fits[0]].append(row)
            free[fits[0]] -= len(row.ids)
        else:
            free[len(found)] = budget - len(row.ids)
            found.append([row])
    return found


def deal(rows: Sequence[Row], ranks: int, cost: Cost) -> list[list[Row]]:
    """Rows for each rank, of about equal cost: the costliest first, each to the rank that has least so far."""
    if ranks == 1:
        return [list(rows)]
    hands: list[list[Row]] = [[] for _ in range(ranks)]
    load = [(0.0, rank) for rank in range(ranks)]
    for row in sorted(rows, key=lambda row: -len(row.ids)):
        had, rank = heapq.heappop(load)
        hands[rank].append(row)
        heapq.heappush(load, (had + cost(len(row.ids)), rank))
    return hands


def passes(rows: Sequence[Row], ranks: int, *, layout: Layout, budget: int, cost: Cost) -> list[list[list[Row]]]:
    """The micro-batches of each rank: [rank][pass] -> rows.

    Every rank has the same number of passes, as sharded weights are gathered by all at once; the last of a rank may be
    empty. Passes are in descending cost, so that those which the ranks do at the same time are alike.
    """
    cut = bins if layout == "packed" else micro_batches
    dealt = [cut(hand, budget) for hand in deal(rows, ranks, cost)]
    if ranks > 1:  # first fit leaves them in the order of their longest row
        dealt = [sorted(micros, key=lambda micro: -sum(cost(len(row.ids)) for row in micro)) for micros in dealt]
    longest = max(len(micros) for micros in dealt)
    return [[*micros, *([] for _ in range(longest - len(micros)))] for micros in dealt]


def fill(micros: Sequence[Sequence[Row]], layout: Layout, budget: int) -> float:
    """The share of real tokens in what micro-batches take: bins of `budget`, or rows padded to the longest."""
    real = sum(len(row.ids) for micro in micros for row in micro)
    lengths = [[len(row.ids) for row in micro] for micro in micros if micro]
    if layout == "packed":
        taken = sum(max(budget, sum(lens)) for lens in lengths)
    else:
        taken = sum(max(lens) * len(lens) for lens in lengths)
    return real / taken if taken else 1.0
