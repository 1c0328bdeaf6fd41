"""Rows: every sampled token once, stale ones masked, branches kept apart, nothing lost in micro-batches."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgym.trainers.batch import Row, build_rows, micro_batches, split_minibatches
from agentgym.types import Group
from tests.trainers.conftest import trajectory, turn


def advantages_of(group: Group) -> list[list[list[np.ndarray]]]:
    return [[[np.full(len(t.completion.ids), t.id + 1.0, np.float32) for t in tr.turns] for tr in group.trajectories]]


def test_one_linear_trajectory_is_one_row() -> None:
    group = Group("g", "a", "e", (trajectory([turn(0, None, [1, 2], [3, 4]), turn(1, 0, [5], [6])], 1.0),))
    (row,) = build_rows([group], advantages_of(group), version=0, max_staleness=0).rows
    assert row.ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert row.mask.tolist() == [0, 0, 1, 1, 0, 1]
    assert row.advantages.tolist() == [0, 0, 1, 1, 0, 2]


def test_stale_tokens_are_masked_and_the_rest_is_trained() -> None:
    # the first token is just too old
    group = Group("g", "a", "e", (trajectory([turn(0, None, [1], [2, 3, 4], [1, 2, 3])], 1.0),))
    made = build_rows([group], advantages_of(group), version=3, max_staleness=1)
    assert made.rows[0].mask.tolist() == [0, 0, 1, 1]
    assert (made.sampled_tokens, made.stale_tokens, made.staleness_max) == (3, 1, 1)


def test_branches_share_a_prefix_that_is_trained_once() -> None:
    turns = [turn(0, None, [1], [2]), turn(1, 0, [3], [4]), turn(2, 0, [5], [6])]
    group = Group("g", "a", "e", (trajectory(turns, 1.0),))
    rows = build_rows([group], advantages_of(group), version=0, max_staleness=0).rows
    assert [row.ids.tolist() for row in rows] == [[1, 2, 3, 4], [1, 2, 5, 6]]
    assert [row.mask.tolist() for row in rows] == [[0, 1, 0, 1], [0, 0, 0, 1]]


def test_rewritten_past_starts_a_row_of_its_own() -> None:
    group = Group("g", "a", "e", (trajectory([turn(0, None, [1], [2]), turn(1, None, [1, 9], [4])], 1.0),))
    rows = build_rows([group], advantages_of(group), version=0, max_staleness=0).rows
    assert [row.ids.tolist() for row in rows] == [[1, 2], [1, 9, 4]]


def test_unscored_trajectories_give_no_row() -> None:
    group = Group("g", "a", "e", (trajectory([turn(0, None, [1], [2])], None),))
    assert build_rows([group], advantages_of(group), version=0, max_staleness=0).rows == []


def row_of(length: int, first: int = 0) -> Row:
    zeros = np.zeros(length, np.float32)
    return Row(np.arange(first, first + length, dtype=np.int32), zeros + 1, zeros, zeros, np.zeros(length, np.int32))


@settings(max_examples=100)
@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 200))
def test_micro_batches_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    rows = [row_of(n) for n in lengths]
    batches = micro_batches(rows, budget)
    assert sorted(id(r) for b in batches for r in b) == sorted(map(id, rows))
    assert all(len(b) == 1 or max(len(r.ids) for r in b) * len(b) <= budget for b in batches)


@settings(max_examples=50)
@given(st.integers(0, 30), st.integers(1, 5), st.integers(0, 3))
def test_minibatches_hold_every_row_once(count: int, parts: int, seed: int) -> None:
    rows = [row_of(2) for _ in range(count)]
    split = split_minibatches(rows, parts, seed)
    assert sorted(id(r) for b in split for r in b) == sorted(map(id, rows))
    assert all(split)
