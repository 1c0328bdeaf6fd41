"""Advantages by a critic, over turns and then over tokens: Bi-Level GAE (Wang et al. 2025, VAGEN, arXiv 2510.16907)."""

from __future__ import annotations

import numpy as np

from agentgym.errors import ConfigError
from agentgym.trainers.credit.groups import Values, turn_rewards, unpaid
from agentgym.types import Floats, Group, Trajectory


def bilevel_gae(
    group: Group,
    *,
    discount: float = 1.0,
    turn_lambda: float = 0.95,
    token_discount: float = 1.0,
    token_lambda: float = 1.0,
) -> list[list[Floats]]:
    """GAE (Schulman et al. 2016, arXiv 1506.02438) twice. V_{k,i} is the critic's value before token i of turn k
    (`Turn.values`), r_k what turn k was paid, and after the last turn V is 0.

    turns:  d_k = r_k + discount V_{k+1,1} - V_{k,1};        A_k = d_k + discount turn_lambda A_{k+1}
    tokens: d_{k,i} = token_discount V_{k,i+1} - V_{k,i};     A_{k,i} = d_{k,i} + token_discount token_lambda A_{k,i+1}
            and of a turn's last token, whose reward is the turn's return:  A_{k,J} = A_k + V_{k,1} - V_{k,J}

    What tools answered is between turns: it is skipped, and neither discounts nor carries anything. With all four
    numbers 1, A_{k,i} is the return from turn k on less V_{k,i}: the expected gradient is the policy gradient, whatever
    the critic. Else it is biased by as much as the critic is wrong. Shapes as `grpo`'s; zeros for unscored
    trajectories. Raises `ConfigError` where tokens have no values.
    """
    advantages = []
    for trajectory in group.trajectories:
        if trajectory.reward is None:
            advantages.append(unpaid(trajectory))
            continue
        values = values_of(trajectory)
        turns = _turn_returns(turn_rewards(trajectory), values, discount, turn_lambda)
        pairs = zip(values, turns, strict=True)
        advantages.append([_tokens(own, target, token_discount, token_lambda) for own, target in pairs])
    return advantages


def values_of(trajectory: Trajectory) -> list[Values]:
    """The critic's values [T] of each turn's sampled tokens; raises `ConfigError` where there are none."""
    values = []
    for turn in trajectory.turns:
        if turn.values is None:
            raise ConfigError(
                f"trainer.credit = 'bilevel_gae': the tokens of {trajectory.id} have no values; it needs a value head: "
                "set credit.critic = 'head'"
            )
        if len(turn.values) != len(turn.completion.ids):
            raise ConfigError(
                f"{trajectory.id}: turn {turn.id} has {len(turn.values)} values for {len(turn.completion.ids)} tokens"
            )
        values.append(turn.values.astype(np.float64))
    return values


def _turn_returns(rewards: Values, values: list[Values], discount: float, lambda_: float) -> Values:
    """A_k + V_{k,1} of each turn. A turn without a token is in the state that the next one begins in."""
    returns = np.zeros_like(rewards)
    ahead = value_ahead = 0.0
    for k in range(len(rewards) - 1, -1, -1):
        value = float(values[k][0]) if len(values[k]) else value_ahead
        ahead = rewards[k] + discount * value_ahead - value + discount * lambda_ * ahead
        returns[k] = ahead + value
        value_ahead = value
    return returns


def _tokens(values: Values, target: float, discount: float, lambda_: float) -> Floats:
    advantages = np.zeros(len(values))
    if len(values):
        ahead = advantages[-1] = target - values[-1]
        for i in range(len(values) - 2, -1, -1):
            ahead = advantages[i] = discount * values[i + 1] - values[i] + discount * lambda_ * ahead
    return advantages.astype(np.float32)
