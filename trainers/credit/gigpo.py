"""Group-in-group advantages: GiGPO (Feng et al. 2025, arXiv 2505.10978, section 4)."""

from __future__ import annotations

import numpy as np

from agentgym.trainers.credit.anchors import Anchor, anchors
from agentgym.trainers.credit.groups import centred, compared, over_tokens, to_go, turn_rewards
from agentgym.types import Floats, Group


def gigpo(
    group: Group,
    *,
    discount: float = 1.0,
    step_weight: float = 1.0,
    anchor: Anchor = "observation",
    std: bool = True,
    eps: float = 1e-4,
) -> list[list[Floats]]:
    """A_{i,t} = A^E_i + step_weight * A^S_{i,t}, given to every sampled token of turn t.

    A^E_i = (R_i - mean(R)) / F, over trajectories. A^S_{i,t} = (G_{i,t} - mean(G)) / F over all turns of the group that
    began in the same state (`anchors`), G_{i,t} being the return from turn t on, discounted by the turn. F is the
    standard deviation (+ eps), or 1 where `std` is false. A state that was met once gives 0.

    Biased: A^S's baseline holds G_{i,t} itself. With F = 1, and states that no trajectory meets twice, what the policy
    gradient owes to a state met with probability p counts 1 - (1 - (1 - p)^n) / (n p) of n trajectories: rare states
    count less. Where states are mistaken for the same ("observation" where that is not all of the state), actions are
    compared that had other prospects. Shapes as `grpo`'s; unscored
    trajectories get zeros and are in no statistic.
    """
    advantages = [np.zeros(len(trajectory.turns)) for trajectory in group.trajectories]
    for members in compared(group):
        rewards = np.array([group.trajectories[i].reward for i in members], dtype=np.float64)
        for i, whole in zip(members, centred(rewards, std=std, eps=eps), strict=True):
            advantages[i] += whole
        met: dict[str, list[tuple[int, int]]] = {}
        for i in members:
            for t, key in enumerate(anchors(group.trajectories[i], anchor)):
                met.setdefault(key, []).append((i, t))
        returns = {i: to_go(turn_rewards(group.trajectories[i]), discount) for i in members}
        for turns in met.values():
            values = np.array([returns[i][t] for i, t in turns])
            for (i, t), step in zip(turns, centred(values, std=std, eps=eps), strict=True):
                advantages[i][t] += step_weight * step
    return over_tokens(group, advantages)
