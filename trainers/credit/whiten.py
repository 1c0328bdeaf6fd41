"""Advantages normalised over the tokens of a batch, whatever credit gave them (PPO's whitening, AReaL's `adv_norm`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from agentgym.protocols import BatchCredit
from agentgym.types import GIVEN, Floats, Group, Trajectory


def whitened(credit: BatchCredit, *, eps: float = 1e-5) -> BatchCredit:
    """(A - mean(A)) / (std(A) + eps), the statistics over the sampled tokens of all scored trajectories of the step.

    Long trajectories weigh more. Where groups differ in length the mean is not 0: then a group without differences gets
    an advantage too, the same for all its tokens. Unscored trajectories keep their zeros, and where no two tokens of
    the batch differ all get 0.
    """

    def normal(groups: Sequence[Group]) -> list[list[list[Floats]]]:
        given = credit(groups)
        played = [trajectory for group in groups for trajectory in group.trajectories]
        pairs = zip(played, [turns for own in given for turns in own], strict=True)
        tokens = [_sampled(*pair) for pair in pairs if pair[0].reward is not None]
        flat = np.concatenate(tokens) if tokens else np.zeros(0)
        if not len(flat) or flat.min() == flat.max():
            return [[[np.zeros_like(a) for a in turns] for turns in own] for own in given]
        mean, scale = flat.mean(), 1.0 / (flat.std() + eps)
        return [
            [
                turns if trajectory.reward is None else [((a - mean) * scale).astype(np.float32) for a in turns]
                for trajectory, turns in zip(group.trajectories, own, strict=True)
            ]
            for group, own in zip(groups, given, strict=True)
        ]

    return normal


def _sampled(trajectory: Trajectory, advantages: Sequence[Floats]) -> npt.NDArray[np.float64]:
    """Those of the tokens that a policy of ours sampled."""
    kept = [a[t.completion.versions != GIVEN] for t, a in zip(trajectory.turns, advantages, strict=True)]
    return np.concatenate([np.zeros(0), *kept]).astype(np.float64)
