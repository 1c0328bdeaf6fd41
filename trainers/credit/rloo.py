"""REINFORCE with a leave-one-out baseline: RLOO (Ahmadian et al. 2024, "Back to basics", arXiv 2402.14740)."""

from __future__ import annotations

import numpy as np

from agentgym.trainers.credit.groups import centred, compared, over_tokens
from agentgym.types import Floats, Group


def rloo(group: Group) -> list[list[Floats]]:
    """A_i = R_i - mean over j != i of R_j, given to every sampled token of trajectory i.

    The baseline knows nothing of trajectory i, so the expected gradient is the policy gradient itself. It is n / (n -
    1) times Dr.GRPO's A_i. Shapes as `grpo`'s; zeros for unscored trajectories and for one that is alone.
    """
    advantages = np.zeros(len(group.trajectories))
    for members in compared(group):
        rewards = np.array([group.trajectories[i].reward for i in members], dtype=np.float64)
        advantages[members] = centred(rewards, std=False, eps=0.0) * len(members) / max(1, len(members) - 1)
    return over_tokens(group, lambda i: np.full(len(group.trajectories[i].turns), advantages[i]))
