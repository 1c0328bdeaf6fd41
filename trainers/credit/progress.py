"""Credit by progress: a turn is paid for how it changed the score of the state, beside what the env pays.

The scores come with the trajectories (`Trajectory.start_score`, `Turn.score`): from the env, from a check of
consistency, or from the policy's likelihood of the gold answer.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from agentgym.errors import ConfigError
from agentgym.trainers.credit.groups import Values, leave_one_out, over_tokens, to_go, turn_rewards
from agentgym.types import Floats, Group, Trajectory

Shaping: TypeAlias = Literal["progress", "potential"]


def progress(
    group: Group,
    *,
    discount: float = 1.0,
    weight: float = 0.5,
    score_discount: float = 0.0,
    shaping: Shaping = "progress",
) -> list[list[Floats]]:
    """A_{i,t} = H_{i,t} - mean over j != i of H_{j,t}, with H_{i,t} = G_{i,t} + weight * P_{i,t}, and H_{j,t} = 0 once
    j has ended; given to every sampled token of turn t. G is the return from turn t on, as in `turn`.

    F_t is the score of the state in which turn t was played, F_T of the last.

    progress: P_t = sum over k >= t of score_discount^(k - t) (F_{k+1} - F_k). At 0 a turn has the progress that it made
    itself (Setlur et al. 2024, "Rewarding progress", arXiv 2410.08146), in between later progress counts for
    less (IGPO, arXiv 2510.14967), at 1 it is F_T - F_t. The expected gradient is that of the reward plus `weight` times
    that of the progress: another aim than the reward alone where a score can be had without it.

    potential: P_t = -F_t, to which discounted differences sum where the last score is put at 0 (Ng, Harada & Russell
    1999, "Policy invariance under reward transformations"). What is left of the score is a baseline that knows the
    state: with discount 1 the expected gradient is the policy gradient.

    Shapes as `grpo`'s; zeros for unscored trajectories. Raises `ConfigError` where a trajectory has no score.
    """
    values = []
    for trajectory in group.trajectories:
        if trajectory.reward is None or not trajectory.turns:
            values.append(np.zeros(len(trajectory.turns)))
            continue
        scores = scores_of(trajectory)
        gained = -scores[:-1] if shaping == "potential" else to_go(np.diff(scores), score_discount)
        values.append(to_go(turn_rewards(trajectory), discount) + weight * gained)
    return over_tokens(group, leave_one_out(group, values))


def scores_of(trajectory: Trajectory) -> Values:
    """[turns + 1]: the score of the state before the first turn, and after each. A turn that has none left the state as
    it was; where the beginning has none it is 0. Raises `ConfigError` where there is none at all."""
    given = [trajectory.start_score, *(turn.score for turn in trajectory.turns)]
    if all(score is None for score in given):
        raise ConfigError(
            f"trainer.credit = 'progress': no state of {trajectory.env_id} (episode {trajectory.id}) has a score: "
            "write progress(episode) -> 0 to 1 in the env, or choose credit.score = 'consistency' or 'gold'"
        )
    scores, now = np.zeros(len(given)), 0.0
    for i, score in enumerate(given):
        now = now if score is None else float(score)
        scores[i] = now
    return scores
