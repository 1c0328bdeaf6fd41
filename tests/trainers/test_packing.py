"""Bins: every row once, none above the budget, and full; shares of equal cost."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen3Config

from agentgym.trainers import segments
from agentgym.trainers.batch import Row
from agentgym.trainers.packing import Cost, bins, cost_of, deal, fill, passes

LENGTHS = st.lists(st.integers(1, 300), max_size=60)


def row(length: int) -> Row:
    none = np.zeros(length, np.float32)
    return Row(np.zeros(length, np.int32), none, none, none, np.zeros(length, np.int32))


def long_tailed(count: int, seed: int = 0) -> list[Row]:
    """Episodes as they come: most short, few very long (lognormal, 20 to 8,000 tokens)."""
    lengths = np.exp(np.random.default_rng(seed).normal(6.0, 1.0, count)).clip(20, 8000)
    return [row(int(n)) for n in lengths]


@given(LENGTHS, st.integers(1, 200))
def test_bins_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    made = [row(n) for n in lengths]
    found = bins(made, budget)
    assert sorted(id(r) for micro in found for r in micro) == sorted(id(r) for r in made)
    for micro in found:
        sizes = [len(r.ids) for r in micro]
        assert sizes == sorted(sizes, reverse=True)
        assert len(micro) == 1 or sum(sizes) <= budget
    assert sum(sum(len(r.ids) for r in micro) <= budget / 2 for micro in found) <= 1  # two such would share a bin


@pytest.mark.parametrize("seed", range(3))
def test_bins_of_a_long_tailed_mix_are_full(seed: int) -> None:
    made = long_tailed(1024, seed)
    found = bins(made, 16384)
    assert fill(found[:-1], "packed", 16384) >= 0.98
    assert fill(found, "packed", 16384) >= 0.95  # with the last, which has what is left


@given(LENGTHS, st.integers(2, 5))
def test_ranks_get_every_row_once_and_as_many_passes(lengths: list[int], ranks: int) -> None:
    made = [row(n) for n in lengths]
    for layout in ("packed", "padded"):
        dealt = passes(made, ranks, layout=layout, budget=300, cost=Cost())  # type: ignore[arg-type]
        assert sorted(id(r) for rank in dealt for micro in rank for r in micro) == sorted(id(r) for r in made)
        assert len({len(rank) for rank in dealt}) == 1


def test_ranks_get_shares_of_equal_cost() -> None:
    cost = Cost(500.0)
    loads = [sum(cost(len(r.ids)) for r in hand) for hand in deal(long_tailed(512), 8, cost)]
    assert max(loads) / min(loads) < 1.02


def test_attention_costs_as_much_as_the_matrices_at_the_crossover() -> None:
    config = Qwen3Config(
        hidden_size=64, intermediate_size=128, num_attention_heads=4, num_key_value_heads=4, head_dim=16
    )
    cost = cost_of(config)
    weights = 4 * 64 * 64 + 3 * 64 * 128
    length = 100
    assert cost(length) * 2 * weights == pytest.approx(2 * weights * length + 2 * 64 * length**2)


@pytest.mark.parametrize("window", [None, 3])
def test_heads_that_share_keys_attend_alike_with_keys_repeated(
    monkeypatch: pytest.MonkeyPatch, window: int | None
) -> None:
    # as on a GPU in fp32, for which torch has no kernel that shares them
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, heads, 12, 8, generator=generator) for heads in (4, 2, 2))
    stacks = segments.stacks_of([7, 5], torch.device("cpu"))

    def attended() -> torch.Tensor:
        module = torch.nn.Identity()
        return segments.segments_attention(module, query, key, value, None, stacks=stacks, sliding_window=window)[0]

    shared = attended()
    monkeypatch.setattr(segments, "_shares_heads", lambda query: False)
    called = segments.scaled_dot_product_attention
    seen: list[bool] = []

    def watched(*args: torch.Tensor, **options: object) -> torch.Tensor:
        seen.append(bool(options.get("enable_gqa")) or args[0].shape[1] != args[1].shape[1])
        return called(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(segments, "scaled_dot_product_attention", watched)
    assert torch.allclose(attended(), shared, rtol=0, atol=1e-6)
    assert seen
    assert not any(seen)


def test_passes_that_ranks_do_at_the_same_time_are_alike() -> None:
    """First fit leaves bins in the order of their longest row, not of their cost."""
    made = [row(length) for length in (70, 70, 50, 50, 49, 49, 20, 20)]
    for layout in ("packed", "padded"):
        for micros in passes(made, 2, layout=layout, budget=100, cost=Cost()):  # type: ignore[arg-type]
            costs = [sum(map(Cost(), [len(row.ids) for row in micro])) for micro in micros]
            assert costs == sorted(costs, reverse=True)
