"""A user's own credit, `path.py:function`, held to its shape."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np

from agentgym.errors import ConfigError
from agentgym.loading import load_object, users_code
from agentgym.protocols import BatchCredit
from agentgym.trainers.credit.groups import unpaid
from agentgym.types import Floats, Group


def users_credit(reference: str) -> BatchCredit:
    """`credit(group) -> [[array [T] or number a turn] a trajectory]`; or, where its first parameter is called `groups`,
    the same for all groups of a step at once.

    Raises `ConfigError` for what is no function, what it raises, and whatever it returns that does not fit: another
    number of trajectories or turns, another length than a turn has sampled tokens, or a number that is not finite.
    Unscored trajectories get zeros, whatever it says of them.
    """
    what = f"trainer.credit = {reference!r}"
    function = load_object(reference, "trainer.credit")
    if not callable(function):
        raise ConfigError(f"{what}: {type(function).__name__} is no function")
    at_once = next(iter(_parameters(function)), "") == "groups"

    def credit(groups: Sequence[Group]) -> list[list[list[Floats]]]:
        with users_code(what):
            given = function(groups) if at_once else [function(group) for group in groups]
        _same_number(what, "groups", given, groups)
        return [_fitting(what, group, rows) for group, rows in zip(groups, given, strict=True)]

    return credit


def _parameters(function: Any) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # builtins have none
        return []


def _fitting(what: str, group: Group, given: Any) -> list[list[Floats]]:
    _same_number(f"{what}: group {group.id}", "trajectories", given, group.trajectories)
    found = []
    for trajectory, rows in zip(group.trajectories, given, strict=True):
        where = f"{what}: {trajectory.id}"
        if trajectory.reward is None:
            found.append(unpaid(trajectory))
            continue
        _same_number(where, "turns", rows, trajectory.turns)
        found.append(
            [
                _array(f"{where}, turn {t.id}", row, len(t.completion.ids))
                for t, row in zip(trajectory.turns, rows, strict=True)
            ]
        )
    return found


def _same_number(where: str, of: str, given: Any, wanted: Sequence[Any]) -> None:
    try:
        count = len(given)
    except TypeError:
        raise ConfigError(f"{where}: expected a list, one item for each of {len(wanted)} {of}, got {given!r}") from None
    if count != len(wanted):
        raise ConfigError(f"{where}: {count} items for {len(wanted)} {of}")


def _array(where: str, given: Any, tokens: int) -> Floats:
    try:
        array = np.asarray(given, dtype=np.float32)
    except (TypeError, ValueError) as e:
        raise ConfigError(f"{where}: expected {tokens} numbers: {e}") from None
    if array.ndim == 0:
        array = np.full(tokens, array, dtype=np.float32)
    if array.shape != (tokens,):
        raise ConfigError(f"{where}: advantages of shape {array.shape} for {tokens} sampled tokens")
    if not np.isfinite(array).all():
        raise ConfigError(f"{where}: an advantage is not a finite number")
    return array
