"""Group-relative advantages: GRPO (DeepSeekMath, arXiv 2402.03300, eq. 3 and section 4.1.2)."""

from __future__ import annotations

import numpy as np

from agentgym.trainers.credit.groups import centred, compared, over_tokens
from agentgym.types import Floats, Group


def grpo(group: Group, *, std: bool = True, eps: float = 1e-4) -> list[list[Floats]]:
    """A_i = (R_i - mean(R)) / (std(R) + eps), given to every sampled token of trajectory i.

    The statistics are over the scored *trajectories* of the group, so the number of turns does not bias the baseline.
    `std=False` leaves the division out (Dr.GRPO, arXiv 2503.20783): its expectation is (n - 1) / n of the policy
    gradient, n being the number of scored trajectories; with the division it is biased, groups of rare success or rare
    failure weighing more. Returns, per trajectory and per turn, a float32 array [T]; unscored trajectories get zeros,
    and so does a group with fewer than two scored ones.
    """
    advantages = np.zeros(len(group.trajectories))
    for members in compared(group):
        rewards = np.array([group.trajectories[i].reward for i in members], dtype=np.float64)
        advantages[members] = centred(rewards, std=std, eps=eps)
    return over_tokens(group, lambda i: np.full(len(group.trajectories[i].turns), advantages[i]))
