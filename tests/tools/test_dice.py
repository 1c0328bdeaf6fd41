"""Dice: the generator that Gymnasium would have made, made later."""

import copy
import pickle
from typing import Any

import gymnasium
import pytest
from gymnasium.utils import seeding

from agentgym.tools.dice import Dice


def test_the_draws_are_those_of_gymnasium() -> None:
    dice, (known, _) = Dice(7), seeding.np_random(7)
    assert dice.rng is dice.rng
    assert dice.rng.random(5).tolist() == known.random(5).tolist()


@pytest.mark.parametrize("seed", [-1, 1.5, "7"])
def test_what_is_no_seed_is_refused_at_once(seed: Any) -> None:
    with pytest.raises(gymnasium.error.Error, match=r"[Ss]eed"):
        Dice(seed)


@pytest.mark.parametrize("drawn", [0, 3])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda dice: pickle.loads(pickle.dumps(dice))])
def test_a_copy_goes_on_by_itself(copied: Any, drawn: int) -> None:
    dice = Dice(7)
    if drawn:
        dice.rng.random(drawn)
    other = copied(dice)
    assert other.rng.random(4).tolist() == dice.rng.random(4).tolist()
    assert other.rng is not dice.rng
