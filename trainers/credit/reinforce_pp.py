"""REINFORCE++ (Hu et al. 2025, arXiv 2501.03262): advantages normalised over the whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from agentgym.trainers.credit.groups import Values, compared, over_tokens, to_go, turn_rewards
from agentgym.types import Floats, Group


def reinforce_pp(
    groups: Sequence[Group],
    *,
    baseline: Literal["batch", "group"] = "batch",
    discount: float = 1.0,
    eps: float = 1e-8,
) -> list[list[list[Floats]]]:
    """A = (x - mean(x)) / (std(x) + eps) over the batch. Takes and gives all groups of a step.

    baseline "batch": x_{i,t} is the return from turn t on, discounted by the turn (REINFORCE++).
    baseline "group": x_i = R_i - mean(R) of its group, for every turn (REINFORCE++-baseline).

    Mean and deviation weigh trajectories alike, however long they are: of a trajectory's turns the mean is taken. (Over
    tokens, as the paper's own code has it, the baseline would be that of long episodes.) Several agents are normalised
    apart. The batch is part of its own baseline, so the expected gradient is biased by the order of 1 over the number
    of trajectories; and by the division. Each group as `grpo`; zeros for unscored trajectories.
    """
    values = [_values(group, baseline, discount) for group in groups]
    normal = [[np.zeros_like(own) for own in of_group] for of_group in values]
    agents: dict[str, list[tuple[int, int]]] = {}
    for g, group in enumerate(groups):
        for i, trajectory in enumerate(group.trajectories):
            if trajectory.reward is not None and trajectory.turns:
                agents.setdefault(trajectory.agent_id, []).append((g, i))
    for places in agents.values():
        own = [values[g][i] for g, i in places]
        # less the group's mean they are 0 on average: rounding aside, which would teach from groups without differences
        mean = float(np.mean([x.mean() for x in own])) if baseline == "batch" else 0.0
        scale = float(np.sqrt(np.mean([((x - mean) ** 2).mean() for x in own])))
        if min(x.min() for x in own) < max(x.max() for x in own):
            for (g, i), x in zip(places, own, strict=True):
                normal[g][i] = (x - mean) / (scale + eps)
    return [over_tokens(group, of_group) for group, of_group in zip(groups, normal, strict=True)]


def _values(group: Group, baseline: str, discount: float) -> list[Values]:
    if baseline == "batch":
        return [to_go(turn_rewards(trajectory), discount) for trajectory in group.trajectories]
    values = [np.zeros(len(trajectory.turns)) for trajectory in group.trajectories]
    for members in compared(group):
        rewards = np.array([group.trajectories[i].reward for i in members], dtype=np.float64)
        apart = rewards - rewards.mean() if rewards.min() < rewards.max() else np.zeros_like(rewards)
        for i, value in zip(members, apart, strict=True):
            values[i][:] = value
    return values
