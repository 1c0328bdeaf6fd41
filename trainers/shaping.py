"""What too long an episode costs: DAPO's soft punishment and its filtering (arXiv 2503.14476, section 3.4).

Both are done here, around credit: the punishment is part of the reward that episodes are compared by (and no part of
the reward that is recorded), and what is filtered still counts in the comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from agentgym.config import Config
from agentgym.errors import ConfigError
from agentgym.protocols import BatchCredit
from agentgym.types import Floats, Group, StopReason, Trajectory

OVERLONG = (StopReason.max_tokens, StopReason.context_overflow)


def length_penalty(tokens: int, limit: int, buffer: int) -> float:
    """0 up to `limit` - `buffer` tokens, then falling evenly, -1 from `limit` on (eq. 13)."""
    return -min(1.0, max(0.0, (tokens - (limit - buffer)) / buffer))


@dataclass(frozen=True, slots=True)
class Shaped:
    """`credit` on rewards that are lower for long episodes; none for truncated ones, where `mask_truncated`."""

    credit: BatchCredit
    limit: int = 0
    buffer: int = 0
    penalty: float = 1.0
    mask_truncated: bool = False

    def __call__(self, groups: Sequence[Group]) -> list[list[list[Floats]]]:
        """As `BatchCredit`."""
        credits = self.credit([self._punished(group) for group in groups])
        if not self.mask_truncated:
            return credits
        return [self._filtered(group, credit) for group, credit in zip(groups, credits, strict=True)]

    def _punished(self, group: Group) -> Group:
        if not self.buffer:
            return group
        return replace(group, trajectories=tuple(self._paid(t) for t in group.trajectories))

    def _paid(self, trajectory: Trajectory) -> Trajectory:
        if trajectory.reward is None:
            return trajectory
        lower = self.penalty * length_penalty(trajectory.sampled_tokens, self.limit, self.buffer)
        return replace(trajectory, reward=trajectory.reward + lower)

    def _filtered(self, group: Group, credit: Sequence[Sequence[Floats]]) -> list[list[Floats]]:
        return [
            [np.zeros_like(a) for a in given] if trajectory.stop_reason in OVERLONG else list(given)
            for trajectory, given in zip(group.trajectories, credit, strict=True)
        ]


def within_limits(trajectory: Trajectory, credit: Sequence[Floats]) -> bool:
    """`IsData` with `mask_truncated`: a truncated episode counts in the comparison, and nowhere else."""
    return trajectory.stop_reason not in OVERLONG


def shaped(credit: BatchCredit, config: Config) -> BatchCredit:
    """`credit` as the section `loss` wants it; itself where nothing is asked of length."""
    asked = config.loss
    if not asked.overlong_buffer and not asked.mask_truncated:
        return credit
    limit = asked.overlong_limit or config.rollout.max_episode_tokens
    if asked.overlong_buffer and limit < asked.overlong_buffer:
        raise ConfigError(
            f"loss.overlong_buffer = {asked.overlong_buffer}: the limit that it ends at is {limit or 'not set'}; set "
            "rollout.max_episode_tokens or loss.overlong_limit to that many tokens or more"
        )
    return Shaped(credit, limit, asked.overlong_buffer, asked.overlong_penalty, asked.mask_truncated)
