"""When the reference may move: on a significant rise of the mean reward, never on noise or a fall."""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np

from agentgym.trainers.anchor import WINDOW, Anchor
from agentgym.types import Group, Outcome, StopReason, Trajectory


def batch(rate: float, rng: np.random.Generator, groups: int = 32, size: int = 8) -> list[Group]:
    def episode() -> Trajectory:
        return Trajectory("i", "t", "e", (), (), float(rng.random() < rate), {}, Outcome.correct, StopReason.completed)

    return [Group(str(g), "t", "e", tuple(episode() for _ in range(size))) for g in range(groups)]


def moves(rates: Iterable[float], seed: int = 0, anchor: Anchor | None = None) -> list[int]:
    anchor, rng = anchor or Anchor(), np.random.default_rng(seed)
    return [step for step, rate in enumerate(rates) if anchor.passed(batch(rate, rng))]


def test_noise_moves_nothing() -> None:
    assert sum(len(moves([0.3] * 100, seed)) for seed in range(10)) <= 1


def test_a_fall_moves_nothing_and_the_way_back_neither() -> None:
    assert moves([0.5] * 10 + [0.2] * 20 + [0.5] * 20) == []


def test_a_rise_moves_it_and_then_a_further_one_is_asked_for() -> None:
    found = moves([0.2] * WINDOW + [0.5] * 30 + [0.9] * 30)
    # each rise is noticed within two windows, the second half of one that was noticed early as another
    first, second = ([step for step in found if begin <= step < begin + 30] for begin in (WINDOW, WINDOW + 30))
    for begin, steps in ((WINDOW, first), (WINDOW + 30, second)):
        assert 1 <= len(steps) <= 2
        assert steps[-1] < begin + 2 * WINDOW


def test_batches_of_nothing_scored_are_left_out() -> None:
    unscored = Trajectory("i", "t", "e", (), (), None, {}, Outcome.unscored, StopReason.fault)
    anchor = Anchor()
    assert not any(anchor.passed([Group("g", "t", "e", (unscored,))]) for _ in range(20))


def test_its_state_goes_on() -> None:
    rates = [0.2] * 6 + [0.6] * 12
    rng, whole = np.random.default_rng(1), Anchor()
    batches = [batch(rate, rng) for rate in rates]
    expected = [whole.passed(b) for b in batches]
    first, second = Anchor(), Anchor()
    found = [first.passed(b) for b in batches[:7]]
    second.restore(json.loads(json.dumps(first.state())))
    assert found + [second.passed(b) for b in batches[7:]] == expected
    assert any(expected)
