"""Group-relative advantages: GRPO (DeepSeekMath, arXiv 2402.03300, eq. 3 and section 4.1.2)."""

from __future__ import annotations

import numpy as np

from agentgym.types import Floats, Group


def grpo(group: Group, *, std: bool = True, eps: float = 1e-4) -> list[list[Floats]]:
    """A_i = (R_i - mean(R)) / (std(R) + eps), given to every sampled token of trajectory i.

    The statistics are over the scored *trajectories* of the group, so the number of turns does not bias the baseline.
    `std=False` leaves the division out (Dr.GRPO, arXiv 2503.20783). Returns, per trajectory and per turn, a float32
    array [T]; unscored trajectories get zeros, and so does a group with fewer than two scored ones.
    """
    rewards = np.array([t.reward for t in group.trajectories if t.reward is not None], dtype=np.float64)
    if len(rewards) < 2:
        mean, scale = 0.0, 0.0
    else:
        mean = float(rewards.mean())
        scale = 1.0 / (float(rewards.std()) + eps) if std else 1.0
    advantages = [0.0 if t.reward is None else (t.reward - mean) * scale for t in group.trajectories]
    return [
        [np.full(len(turn.completion.ids), advantage, dtype=np.float32) for turn in trajectory.turns]
        for trajectory, advantage in zip(group.trajectories, advantages, strict=True)
    ]
