"""Groups and their credit -> rows of tokens -> padded micro-batches of similar length.

The staleness bound is enforced here, in one place: a token whose version is too old is masked, the rest of its
trajectory is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agentgym.trainers.routing import experts_of
from agentgym.types import GIVEN, Experts, Floats, Group, Ids, Trajectory, Turn


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence, all arrays of shape [T]. `mask` is 1 on tokens to train; `ids[t]` is predicted from `ids[:t]`.

    `version` is the one being trained, `source` the id of the trajectory. `proximal` are the logprobs of the weights
    that the step began with, where `preparation` has computed them.
    """

    ids: Ids
    mask: Floats
    logprobs: Floats
    advantages: Floats
    versions: Ids
    version: int = 0
    source: str = ""
    proximal: Floats | None = None
    experts: Experts | None = None
    """Those that the engine sent each token to, where it was asked."""
    counts: bool = True
    """Whether it is part of what is learned from: not in a group that teaches nothing, nor of an episode that is no
    data. The other rows of its group do not change that."""

    @property
    def trained(self) -> int:
        return int(self.mask.sum())

    @property
    def idle(self) -> bool:
        """Whether no trained token has an advantage: a policy loss has no gradient there."""
        return not (self.advantages * self.mask).any()


IsData = Callable[[Trajectory, Sequence[Floats]], bool]
"""Whether an episode with these advantages is learned from at all. One may have none and be data: it was as good as
those that it is compared with."""


def always(trajectory: Trajectory, credit: Sequence[Floats]) -> bool:
    """`IsData` of every episode."""
    return True


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a batch and what was left out of it."""

    rows: list[Row]
    sampled_tokens: int
    stale_tokens: int
    staleness_sum: int
    staleness_max: int


def build_rows(
    groups: Sequence[Group],
    credits: Sequence[Sequence[Sequence[Floats]]],
    *,
    version: int,
    max_staleness: int,
    is_data: IsData = always,
) -> Rows:
    """One row a leaf of each trajectory's tree; a turn that several leaves share is trained in the first only.

    `credits[g][i][t]` are the advantages [T] of turn t of trajectory i of group g; `version` is the one being trained.
    """
    rows: list[Row] = []
    sampled = stale = staleness_sum = staleness_max = 0
    for group, credit in zip(groups, credits, strict=True):
        teaches = any(advantage.any() for advantages in credit for advantage in advantages)
        for trajectory, advantages in zip(group.trajectories, credit, strict=True):
            if trajectory.reward is None:
                continue
            counts = teaches and is_data(trajectory, advantages)
            for row in _trajectory_rows(trajectory, advantages):
                mine = row.mask > 0
                age = version - row.versions[mine]
                fresh = row.mask * ((version - row.versions) <= max_staleness)
                sampled += int(mine.sum())
                stale += int(mine.sum() - fresh.sum())
                kept = version - row.versions[fresh > 0]
                staleness_sum += int(kept.sum())
                staleness_max = max(staleness_max, int(kept.max(initial=0)))
                mask = fresh if (age > max_staleness).any() else row.mask
                rows.append(replace(row, mask=mask, version=version, source=trajectory.id, counts=counts))
    return Rows(rows, sampled, stale, staleness_sum, staleness_max)


def _trajectory_rows(trajectory: Trajectory, advantages: Sequence[Floats]) -> Iterator[Row]:
    by_id = {turn.id: (turn, advantages[i]) for i, turn in enumerate(trajectory.turns)}
    parents = {turn.parent for turn in trajectory.turns}
    trained: set[int] = set()
    for leaf in trajectory.turns:
        if leaf.id in parents:
            continue
        path: list[tuple[Turn, Floats]] = []
        at: int | None = leaf.id
        while at is not None:
            path.append(by_id[at])
            at = path[-1][0].parent
        yield _row(path[::-1], trained)


def _row(path: Sequence[tuple[Turn, Floats]], trained: set[int]) -> Row:
    length = sum(len(turn.context_ids) + len(turn.completion.ids) for turn, _ in path)
    ids, versions = np.zeros(length, np.int32), np.zeros(length, np.int32)
    mask, logprobs, advantages = (np.zeros(length, np.float32) for _ in range(3))
    experts = experts_of([turn for turn, _ in path])
    at = 0
    for turn, advantage in path:
        context, done = len(turn.context_ids), turn.completion
        ids[at : at + context] = turn.context_ids
        span = slice(at + context, at + context + len(done.ids))
        ids[span], logprobs[span], versions[span] = done.ids, done.logprobs, done.versions
        if turn.id not in trained:
            mask[span], advantages[span] = done.versions != GIVEN, advantage
            trained.add(turn.id)
        at = span.stop
    if at:
        mask[0] = 0.0  # nothing predicts the first token
    return Row(ids, mask, logprobs, advantages, versions, experts=experts)


def micro_batches(rows: Sequence[Row], budget: int) -> list[list[Row]]:
    """Rows sorted by length and cut where a batch's padded size would pass `budget` tokens (one row always fits)."""
    batches: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: -len(row.ids)):
        # sorted descending: the first row of a batch is its longest and sets the padded width
        if batches and len(batches[-1][0].ids) * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def split_minibatches(rows: Sequence[Row], parts: int, seed: int) -> list[list[Row]]:
    """Rows shuffled by `seed` into `parts` of about equal size; empty parts are left out."""
    order = np.random.default_rng(seed).permutation(len(rows))
    return [[rows[i] for i in part] for part in np.array_split(order, parts) if len(part)]
