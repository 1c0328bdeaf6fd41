"""The branches of a trajectory's tree as sequences of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from agentgym.types import Ids, Trajectory


@dataclass(frozen=True, slots=True)
class Path:
    """A branch from its first token to its leaf: `ids` [T], and where the sampled tokens of the turns are that no
    earlier branch has: (place of the turn in the trajectory, slice of `ids`)."""

    ids: Ids
    spans: tuple[tuple[int, slice], ...]


def paths(trajectory: Trajectory) -> Iterator[Path]:
    """One a leaf, each turn's span in the first of them."""
    place = {turn.id: i for i, turn in enumerate(trajectory.turns)}
    parents = {turn.parent for turn in trajectory.turns}
    seen: set[int] = set()
    for leaf in trajectory.turns:
        if leaf.id in parents:
            continue
        parts: list[Ids] = []
        spans, at = [], 0
        for i in _chain(trajectory, place[leaf.id], place):
            turn = trajectory.turns[i]
            parts += [turn.context_ids, turn.completion.ids]
            start = at + len(turn.context_ids)
            at = start + len(turn.completion.ids)
            if i not in seen:
                seen.add(i)
                spans.append((i, slice(start, at)))
        yield Path(np.concatenate(parts).astype(np.int32), tuple(spans))


def ids_before(trajectory: Trajectory) -> list[Ids]:
    """For each turn the tokens of its branch up to where it was sampled, its own context included."""
    place = {turn.id: i for i, turn in enumerate(trajectory.turns)}
    found = []
    for i, turn in enumerate(trajectory.turns):
        before = [trajectory.turns[j] for j in _chain(trajectory, i, place)[:-1]]
        parts = [part for other in before for part in (other.context_ids, other.completion.ids)]
        found.append(np.concatenate([*parts, turn.context_ids]).astype(np.int32))
    return found


def _chain(trajectory: Trajectory, leaf: int, place: dict[int, int]) -> list[int]:
    """The places of a turn's forebears and its own, the eldest first."""
    chain = [leaf]
    while (parent := trajectory.turns[chain[-1]].parent) is not None:
        chain.append(place[parent])
    return chain[::-1]
