"""Group-relative advantages: GRPO (DeepSeekMath, arXiv 2402.03300, eq. 3 and section 4.1.2)."""

from __future__ import annotations

from collections.abc import Sequence

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


def grpo_over_batch(groups: Sequence[Group], *, eps: float = 1e-4) -> list[list[list[Floats]]]:
    """A_i = (R_i - mean(R)) / (std + eps), `std` that of all rewards of the step (LitePPO, arXiv 2508.08221).

    Takes and gives all groups of a step. The deviation is that of the rewards as they are, before any mean is taken
    off, over all scored trajectories; of several agents each has its own. Else as `grpo`.
    """
    paid: dict[str, list[float]] = {}
    for group in groups:
        for t in group.trajectories:
            if t.reward is not None:
                paid.setdefault(t.agent_id, []).append(t.reward)
    scale = {agent: 1.0 / (float(np.std(rewards)) + eps) for agent, rewards in paid.items()}
    return [
        [
            [advantages * np.float32(scale.get(trajectory.agent_id, 0.0)) for advantages in turns]
            for trajectory, turns in zip(group.trajectories, grpo(group, std=False), strict=True)
        ]
        for group in groups
    ]
