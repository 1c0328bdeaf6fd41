"""How old the tokens of a step were, counted from the stored trajectories alone.

It is a second count on purpose, and shares nothing with `trainers.batch`, which masks the tokens that are too old:
what is checked by the code that did it is not checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from agentgym.types import GIVEN, Floats, Group, Ids, Trajectory


@dataclass(slots=True)
class Ages:
    """Of a step's sampled tokens in scored episodes, in versions behind the one that was trained."""

    sampled: int = 0
    too_old: int = 0
    """Beyond the bound."""
    oldest: int = 0
    """Within the bound, as is the sum."""
    total: int = 0
    trainable: int = 0
    """Those within the bound of sequences from which something can be learned: so many tokens are trained at least."""
    counted: int = 0
    """Those within the bound of all sequences of such groups: so many at most, where KL or entropy see them too."""

    @property
    def figures(self) -> dict[str, float]:
        """As a run's metrics name them."""
        return {
            "staleness/mean": self.total / max(1, self.sampled - self.too_old),
            "staleness/max": float(self.oldest),
            "masked_frac": self.too_old / max(1, self.sampled),
        }


def count_ages(
    groups: Sequence[Group], credits: Sequence[Sequence[Sequence[Floats]]], *, version: int, bound: int
) -> Ages:
    """`credits[g][i][t]`: the advantages of turn t of trajectory i of group g; `version`: the one that was trained."""
    found = Ages()
    for group, credit in zip(groups, credits, strict=True):
        teaches = any(np.any(turn) for advantages in credit for turn in advantages)
        for trajectory, advantages in zip(group.trajectories, credit, strict=True):
            if trajectory.reward is None:
                continue
            for turns in _sequences(trajectory):
                ages = [version - sampled for i, first in turns for sampled in [_sampled(trajectory, i, first)]]
                fresh = sum(int((age <= bound).sum()) for age in ages)
                for age in ages:
                    within = age[age <= bound]
                    found.sampled += len(age)
                    found.total += int(within.sum())
                    found.oldest = max(found.oldest, int(within.max(initial=0)))
                found.too_old += sum(map(len, ages)) - fresh
                found.counted += fresh if teaches else 0
                if any(np.any(advantages[i]) for i, _ in turns):
                    found.trainable += fresh
    return found


def _sequences(trajectory: Trajectory) -> Iterator[list[tuple[int, bool]]]:
    """For each leaf of the trajectory's tree the turns (places in `turns`) that are new with it, and whether the
    sequence begins with that turn's first sampled token: nothing predicts that one."""
    place = {turn.id: i for i, turn in enumerate(trajectory.turns)}
    inner = {turn.parent for turn in trajectory.turns}
    seen: set[int] = set()
    for leaf in trajectory.turns:
        if leaf.id in inner:
            continue
        path: list[int] = []
        at: int | None = leaf.id
        while at is not None:
            path.append(place[at])
            at = trajectory.turns[place[at]].parent
        length, new = 0, []
        for i in reversed(path):
            turn = trajectory.turns[i]
            length += len(turn.context_ids)
            if i not in seen:
                new.append((i, length == 0))
                seen.add(i)
            length += len(turn.completion.ids)
        yield new


def _sampled(trajectory: Trajectory, turn: int, first: bool) -> Ids:
    """The versions that sampled a turn's tokens, those left out that were given."""
    versions = trajectory.turns[turn].completion.versions[1 if first else 0 :]
    own: Ids = versions[versions != GIVEN]
    return own
