"""Credit by turns: what was paid from a turn on, beside what the others were paid from the same turn on."""

from __future__ import annotations

from agentgym.trainers.credit.groups import leave_one_out, over_tokens, to_go, turn_rewards
from agentgym.types import Floats, Group


def turn_credit(group: Group, *, discount: float = 1.0) -> list[list[Floats]]:
    """A_{i,t} = G_{i,t} - mean over j != i of G_{j,t}, with G_{i,t} = sum over k >= t of discount^(k - t) r_{i,k}, and
    G_{j,t} = 0 once j has ended; given to every sampled token of turn t.

    REINFORCE with reward to go (Sutton & Barto 2018, section 13.3, by turns) and RLOO's baseline, one a turn. Each
    baseline is made of other trajectories alone, so the expected gradient is the policy gradient, whatever decides on
    the number of turns. (A mean over those that are still under way, i among them, would not do: it shrinks A by
    (m - 1) / m, and the policy decides on m.) With discount < 1 rewards that come later count for less: biased towards
    what is paid soon. Shapes as `grpo`'s; zeros for unscored trajectories and for one that is alone.
    """
    returns = [to_go(turn_rewards(trajectory), discount) for trajectory in group.trajectories]
    return over_tokens(group, leave_one_out(group, returns))
