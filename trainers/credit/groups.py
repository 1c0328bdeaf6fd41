"""What every estimator needs: who is compared with whom, what each turn was paid, and turns spread over their tokens.

Turns are taken in the order in which they were played, whatever their `parent`s. A branch that a template's rewriting
or a program began goes on in the same world: what is paid there may be owed to any turn before it. So reward is
carried along time and not along the tree, and neither a fork nor a tool's answer in between cuts it off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from agentgym.types import Floats, Group, Trajectory

Values: TypeAlias = npt.NDArray[np.float64]
"""One number a turn of a trajectory, in the order of its turns."""


def compared(group: Group) -> list[list[int]]:
    """The scored trajectories that are compared with one another, by their places: those of one agent.

    Where several agents play in an episode, each is measured by what it did in the group's other episodes: what the
    agents are paid may lie on different scales.
    """
    by_agent: dict[str, list[int]] = {}
    for i, trajectory in enumerate(group.trajectories):
        if trajectory.reward is not None:
            by_agent.setdefault(trajectory.agent_id, []).append(i)
    return list(by_agent.values())


def turn_rewards(trajectory: Trajectory) -> Values:
    """What each turn was paid. What the trajectory's reward has beside that counts for its last turn."""
    rewards = np.array([turn.reward for turn in trajectory.turns], dtype=np.float64)
    if len(rewards):
        rewards[-1] += (trajectory.reward or 0.0) - sum(turn.reward for turn in trajectory.turns)
    return rewards


def to_go(rewards: Values, discount: float = 1.0) -> Values:
    """G_t = sum over k >= t of discount^(k - t) r_k."""
    returns = np.zeros_like(rewards)
    ahead = 0.0
    for t in range(len(rewards) - 1, -1, -1):
        ahead = returns[t] = rewards[t] + discount * ahead
    return returns


def centred(values: Values, *, std: bool, eps: float) -> Values:
    """values [n] less their mean, over their standard deviation where `std`; exactly 0 where they are all the same."""
    if len(values) < 2 or values.min() == values.max():
        return np.zeros_like(values)
    apart: Values = values - values.mean()
    return apart * (1.0 / (values.std() + eps)) if std else apart


def leave_one_out(group: Group, values: Sequence[Values]) -> list[Values]:
    """values[i] [turns of i] less the mean of the other trajectories' at the same place; 0 after a trajectory's end.

    The place of a turn is how many turns its agent had before it. The mean is over all others, those that have ended
    included: it then depends on nothing that trajectory i did, and not on how many are still under way. Zeros for
    unscored trajectories, and for a scored one that is alone. Values that are equal give exactly 0.
    """
    apart = [np.zeros(len(t.turns)) for t in group.trajectories]
    for members in compared(group):
        if len(members) < 2:
            continue
        places = [_places(group.trajectories[i]) for i in members]
        columns = {place: c for c, place in enumerate(dict.fromkeys(p for own in places for p in own))}
        table = np.zeros((len(members), len(columns)))
        for row, (i, own) in enumerate(zip(members, places, strict=True)):
            table[row, [columns[place] for place in own]] = values[i]
        for row, (i, own) in enumerate(zip(members, places, strict=True)):
            difference = (table[row] - table).sum(axis=0) / (len(members) - 1)
            apart[i] = difference[[columns[place] for place in own]]
    return apart


def _places(trajectory: Trajectory) -> list[tuple[str, int]]:
    """(agent, how many turns it had before) of each turn."""
    seen: Counter[str] = Counter()
    places = []
    for turn in trajectory.turns:
        places.append((turn.agent_id, seen[turn.agent_id]))
        seen[turn.agent_id] += 1
    return places


def over_tokens(group: Group, values: Callable[[int], Values] | Sequence[Values]) -> list[list[Floats]]:
    """One number a turn -> one float32 array [T] a turn, the number on each sampled token; zeros where unscored."""
    given = values if callable(values) else values.__getitem__
    return [
        [
            np.full(len(turn.completion.ids), value, dtype=np.float32)
            for turn, value in zip(trajectory.turns, given(i), strict=True)
        ]
        if trajectory.reward is not None
        else unpaid(trajectory)
        for i, trajectory in enumerate(group.trajectories)
    ]


def unpaid(trajectory: Trajectory) -> list[Floats]:
    """Zeros for every token."""
    return [np.zeros(len(turn.completion.ids), dtype=np.float32) for turn in trajectory.turns]
