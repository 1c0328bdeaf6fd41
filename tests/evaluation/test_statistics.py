"""The statistics, against brute force and by hand."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgym.evals import statistics
from agentgym.evals.statistics import (
    Interval,
    clustered_error,
    mean_interval,
    paired,
    pass_at_k,
    pass_hat_k,
    sign_flip,
    success_interval,
    wilson,
)


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.data())
def test_passes_are_the_share_of_all_choices_of_k(wins: list[bool], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(wins)))
    choices = list(itertools.combinations(wins, k))
    assert pass_at_k(len(wins), sum(wins), k) == pytest.approx(sum(map(any, choices)) / len(choices))
    assert pass_hat_k(len(wins), sum(wins), k) == pytest.approx(sum(map(all, choices)) / len(choices))


def test_passes_refuse_more_than_was_played() -> None:
    for estimate in (pass_at_k, pass_hat_k):
        with pytest.raises(ValueError, match="k = 5 of 4 tries"):
            estimate(4, 2, 5)
        with pytest.raises(ValueError, match="5 successes of 4"):
            estimate(4, 5, 1)


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=5), min_size=1, max_size=30))
def test_an_interval_holds_its_mean_and_stays_a_rate(wins: list[list[bool]]) -> None:
    tasks = [[float(won) for won in task] for task in wins]
    found = success_interval(tasks)
    assert found.mean == pytest.approx(np.mean([np.mean(task) for task in tasks]))
    assert 0 <= found.low <= found.mean <= found.high <= 1
    assert found.low < found.high
    again = success_interval(tasks)
    assert again == found


def test_the_interval_is_wilsons_with_one_episode_a_task() -> None:
    # 8 of 10: 0.4902 to 0.9433 (Brown, Cai & DasGupta 2001, the standard example of the score interval)
    found = success_interval([[1.0]] * 8 + [[0.0]] * 2)
    assert (found.low, found.high) == pytest.approx((0.49016, 0.94332), abs=1e-5)
    assert success_interval([[1.0]] * 20) == wilson(1.0, 20)


def test_alike_episodes_of_a_task_narrow_nothing() -> None:
    once, alike = [[1.0]] * 5 + [[0.0]] * 15, [[1.0] * 8] * 5 + [[0.0] * 8] * 15
    mixed = [[1.0] * 2 + [0.0] * 6] * 20
    assert success_interval(alike) == success_interval(once)
    assert success_interval(mixed) == wilson(0.25, 160)


def test_coverage_of_the_clustered_interval() -> None:
    """Over 600 simulated evaluations of 40 tasks of differing difficulty, 4 episodes each."""
    rng = np.random.default_rng(0)
    rates = rng.beta(0.6, 0.9, (600, 40))
    wins = rng.random((600, 40, 4)) < rates[:, :, None]
    truth = 0.6 / 1.5
    held = [truth >= (i := success_interval(w.astype(float).tolist())).low and truth <= i.high for w in wins]
    assert 0.92 <= np.mean(held) <= 0.98


def test_the_mean_of_intervals() -> None:
    same = Interval(0.5, 0.4, 0.7)
    assert mean_interval([same]) == Interval(0.5, pytest.approx(0.4), pytest.approx(0.7))  # type: ignore[arg-type]
    four = mean_interval([same] * 4)
    assert (four.low, four.high) == pytest.approx((0.45, 0.6))


def test_the_clustered_error() -> None:
    # mean 1/2; sums of (x - mean) by task: 1, 0, -1; sqrt(2) / 6
    assert clustered_error([[1, 1], [0, 1], [0, 0]]) == pytest.approx(2**0.5 / 6)


@given(st.lists(st.fractions(-1, 1, max_denominator=6), max_size=9))
def test_the_exact_test_counts_all_signs(differences: list[Fraction]) -> None:
    observed = abs(sum(differences))
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    p, test = sign_flip([d for d in differences if d])
    assert test == "exact"
    assert p == pytest.approx(sum(s >= observed for s in sums) / len(sums))


def test_with_one_episode_a_task_it_is_mcnemars() -> None:
    # 12 tasks better, 3 worse: 2 * P(Binomial(15, 1/2) <= 3)
    expected = 2 * sum(math.comb(15, i) for i in range(4)) / 2**15
    p, _ = sign_flip([Fraction(1)] * 12 + [Fraction(-1)] * 3)
    assert p == pytest.approx(expected)


def test_drawn_signs_come_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = [Fraction(i % 5 - 1, 4) for i in range(30)]
    differences = [d for d in differences if d]
    exact, _ = sign_flip(differences)
    monkeypatch.setattr(statistics, "EXACT_WORK", 0)
    drawn, test = sign_flip(differences, seed=1)
    assert test == "sampled"
    assert drawn == pytest.approx(exact, abs=5 * math.sqrt(exact / statistics.DRAWS) + 1e-5)
    assert drawn > 0
    assert sign_flip(differences, seed=1)[0] == drawn


@settings(max_examples=50)
@given(st.lists(st.lists(st.fractions(-1, 1, max_denominator=4), min_size=1, max_size=12), min_size=1, max_size=3))
def test_a_comparison_turned_round_is_its_mirror(groups: list[list[Fraction]]) -> None:
    there, back = paired(groups), paired([[-d for d in group] for group in groups])
    assert there.p == pytest.approx(back.p)
    assert there.difference.mean == pytest.approx(-back.difference.mean)
    assert there.difference.low == pytest.approx(-back.difference.high)
    assert -1 <= there.difference.low <= there.difference.mean <= there.difference.high <= 1
    assert there.difference.low < there.difference.high


def test_groups_weigh_alike() -> None:
    found = paired([[Fraction(1)] * 2, [Fraction(0)] * 50])
    assert found.difference.mean == 0.5
    assert found.p == 0.5
    assert paired([[Fraction(0)] * 9]).p == 1.0
