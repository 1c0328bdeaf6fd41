"""The shapes of a step's batch: rows of expected lengths, laid out by the trainer's own code."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agentgym.config import Config
from agentgym.trainers.batch import Row, split_minibatches
from agentgym.trainers.packing import Layout, cost_of, passes

SIGMA = 1.0
"""Spread of the lengths' logarithm, as in benchmarks/async_overlap.py: few episodes are long, and many short."""
FEWEST_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Batch:
    """One learner step."""

    groups: int
    group_size: int
    rows: int
    context: int
    """Tokens that a row may have."""
    tokens_row: int
    """Tokens of a row on average, as drawn; `longest` is the longest drawn."""
    longest: int
    tokens: int
    """Of all rows; `sampled` of them by the policy."""
    sampled: int
    micro_batches: int
    """Forward and backward passes of a rank."""
    micro_tokens: int
    """Tokens of the largest, padding included."""
    padded: int
    """Tokens of all, padding included."""
    busiest: int
    """Of them, those of the rank (or group of ranks with the same rows) that has most: the others wait."""
    minibatches: int
    attended: float
    """Tokens that a token attends to, on average."""


def plan_batch(config: Config, model: Any, ranks: int) -> Batch:
    """model: its transformers config; `engine.max_context` is resolved; ranks: those with rows of their own.

    Lengths are lognormal with the mean of `plan.episode_tokens`, cut at the context, drawn by the run's seed.
    """
    rollout, context = config.rollout, config.engine.max_context
    rows = drawn_rows(expected(config), context, rollout.groups * rollout.group_size, config.run.seed)
    lengths = np.array([len(row.ids) for row in rows])
    budget = config.learner.tokens_per_microbatch
    parts = split_minibatches(rows, config.learner.minibatches, config.run.seed)
    layout: Layout = "padded" if config.learner.layout == "padded" else "packed"
    cut = [passes(part, ranks, layout=layout, budget=budget, cost=cost_of(model)) for part in parts]
    loads = [[sum(_size(micro, layout) for micro in hand) for hand in hands] for hands in cut]
    sizes = [_size(micro, layout) for hands in cut for hand in hands for micro in hand]
    tokens = int(lengths.sum())
    return Batch(
        groups=rollout.groups,
        group_size=rollout.group_size,
        rows=len(rows),
        context=context,
        tokens_row=round(tokens / len(rows)),
        longest=int(lengths.max()),
        tokens=tokens,
        sampled=round(tokens * config.plan.sampled),
        micro_batches=sum(len(hands[0]) for hands in cut),
        # a row of the whole context is a micro-batch of its own where it is above the budget
        micro_tokens=max(*sizes, min(budget, tokens), context),
        padded=sum(sizes),
        busiest=sum(max(hands) for hands in loads),
        minibatches=len(parts),
        attended=float((lengths.astype(float) ** 2).sum() / tokens / 2),
    )


def _size(micro: Sequence[Row], layout: Layout) -> int:
    """Tokens of a micro-batch, padding included."""
    lengths = [len(row.ids) for row in micro]
    return sum(lengths) if layout == "packed" else max(lengths, default=0) * len(lengths)


def expected(config: Config) -> int:
    """Tokens of an episode on average."""
    return min(config.plan.episode_tokens or config.engine.max_context // 2, config.engine.max_context)


@functools.lru_cache(maxsize=4)  # a balanced split is looked for with the same rows
def drawn_rows(mean: int, most: int, count: int, seed: int) -> tuple[Row, ...]:
    """Rows of `draw_lengths`."""
    return tuple(_row(int(length)) for length in draw_lengths(mean, most, count, seed))


def draw_lengths(mean: int, most: int, count: int, seed: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """`count` lengths of mean `mean` (within 1% where there are many), none above `most`."""
    normal = np.random.default_rng(seed).standard_normal(count)
    low, high = 0.0, 40.0
    for _ in range(60):  # the median that gives this mean once lengths are cut
        median = (low + high) / 2
        low, high = (median, high) if _cut(normal, median, most).mean() < mean else (low, median)
    return _cut(normal, high, most).astype(np.int64)


def _cut(
    normal: np.ndarray[tuple[int], np.dtype[np.float64]], median: float, most: int
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.clip(np.exp(np.minimum(median + SIGMA * normal, 60.0)), min(FEWEST_TOKENS, most), most)


def _row(length: int) -> Row:
    """A row that takes no memory."""
    zeros = np.broadcast_to(np.float32(0), (length,))
    ids = np.broadcast_to(np.int32(0), (length,))
    return Row(ids, np.broadcast_to(np.float32(1), (length,)), zeros, zeros, ids)
