"""By counting everything out: the expected gradient of each estimator is the policy gradient, or the biased one that
its docstring states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from agentgym.trainers.credit.bilevel_gae import bilevel_gae
from agentgym.trainers.credit.gigpo import gigpo
from agentgym.trainers.credit.groups import over_tokens, to_go, turn_rewards
from agentgym.trainers.credit.grpo import grpo
from agentgym.trainers.credit.progress import progress
from agentgym.trainers.credit.reinforce_pp import reinforce_pp
from agentgym.trainers.credit.rloo import rloo
from agentgym.trainers.credit.turn import turn_credit
from agentgym.types import Floats, Group, Trajectory
from tests.trainers.credit.decision_process import (
    EPISODES,
    SCORES,
    THETA,
    Array,
    Played,
    expectation,
    expected_gradient,
    forked,
    rewritten,
    score_function,
    true_gradient,
    value,
    weighted,
)

close = partial(np.testing.assert_allclose, rtol=0, atol=2e-7)  # advantages are float32


def cosine(a: Array, b: Array) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


def test_the_process_is_counted_right() -> None:
    """Probabilities sum to 1, lengths differ, and the gradient is that of the value by finite differences."""
    assert sum(episode.probability for episode in EPISODES) == pytest.approx(1)
    assert {len(episode.path) for episode in EPISODES} == {1, 2, 3}
    numeric = np.zeros_like(THETA)
    for at in np.ndindex(*THETA.shape):
        for sign in (1, -1):
            THETA[at] += sign * 1e-5
            numeric[at] += sign * value("start") / 2e-5
            THETA[at] -= sign * 1e-5
    np.testing.assert_allclose(true_gradient(), numeric, atol=1e-9)
    assert expectation(lambda e: np.array(sum(e.rewards))) == pytest.approx(value("start"))


@pytest.mark.parametrize("size", [2, 3])
def test_rloo_and_turn_are_unbiased(size: int) -> None:
    close(expected_gradient(rloo, size), true_gradient())
    close(expected_gradient(turn_credit, size), true_gradient())


@pytest.mark.parametrize("size", [2, 3])
def test_dr_grpo_is_short_by_a_known_factor(size: int) -> None:
    close(expected_gradient(partial(grpo, std=False), size), (size - 1) / size * true_gradient())


def test_the_deviation_turns_grpo_s_gradient() -> None:
    biased = expected_gradient(grpo, 3)
    assert 0.9 < cosine(biased, true_gradient()) < 0.9999


def test_a_discount_biases_turn_to_the_discounted_return_from_each_turn() -> None:
    def discounted(episode: Played) -> Array:
        return weighted(episode, to_go(np.array(episode.rewards), 0.8).tolist())

    found = expected_gradient(partial(turn_credit, discount=0.8), 2)
    close(found, expectation(discounted))
    assert cosine(found, true_gradient()) < 0.999


def of_those_under_way(group: Group) -> list[list[Floats]]:
    """What not to do: the return less the mean over all that are still under way at this turn, its own among them."""
    returns = [to_go(turn_rewards(t)) for t in group.trajectories]

    def apart(i: int) -> Array:
        means = [np.mean([other[k] for other in returns if len(other) > k]) for k in range(len(returns[i]))]
        return np.array(returns[i] - np.array(means))

    return over_tokens(group, apart)


def test_the_number_of_turns_does_not_bias_the_baseline() -> None:
    """A mean over those under way does: it is no multiple of the gradient. The test sees it, and passes `turn`."""
    assert cosine(expected_gradient(of_those_under_way, 3), true_gradient()) < 0.999
    assert cosine(expected_gradient(turn_credit, 3), true_gradient()) > 1 - 1e-9


@pytest.mark.parametrize("change", [rewritten, forked])
@pytest.mark.parametrize(
    "estimator", [rloo, turn_credit, partial(progress, shaping="potential"), partial(bilevel_gae, turn_lambda=1.0)]
)
def test_branches_change_nothing(
    estimator: Callable[[Group], list[list[Floats]]], change: Callable[[Trajectory], Trajectory]
) -> None:
    """What is paid in a later branch is owed to the turns before it too."""
    close(expected_gradient(estimator, 2, change), true_gradient())


def visits(size: int) -> Array:
    """GiGPO's steps without deviation: sum over states s of (p_s - (1 - (1 - p_s)^n) / n) times the gradient that is
    owed to the choice in s, as n p_s - (1 - (1 - p_s)^n) is the expected number of visits beyond the first."""
    states: dict[tuple[object, ...], tuple[float, Array]] = {}
    for episode in EPISODES:
        returns = to_go(np.array(episode.rewards))
        for k, gradients in enumerate(episode.gradients()):
            key = (*((move.tokens, said) for _, move, said in episode.path[:k]), episode.path[k][0])
            chance, owed = states.get(key, (0.0, np.zeros_like(THETA)))
            step = episode.probability * returns[k] * np.sum(gradients, axis=0)
            states[key] = (chance + episode.probability, owed + step)
    total = np.zeros_like(THETA)
    for chance, owed in states.values():
        total += (chance - (1 - (1 - chance) ** size) / size) * owed / chance
    return total


@pytest.mark.parametrize("size", [2, 3])
def test_gigpo_is_biased_as_stated(size: int) -> None:
    steps = partial(gigpo, anchor="conversation", std=False)
    close(expected_gradient(partial(steps, step_weight=0.0), size), (size - 1) / size * true_gradient())
    whole = (size - 1) / size * true_gradient() + 0.7 * visits(size)
    close(expected_gradient(partial(steps, step_weight=0.7), size), whole)


def test_reinforce_pp_is_biased_by_its_own_part_in_the_mean() -> None:
    """Under a huge eps the deviation plays no part. Then A is x less the batch's mean, of which 1/n is its own."""
    scale = 1e6

    def unscaled(group: Group) -> list[list[Floats]]:
        return [[a * scale for a in turns] for turns in reinforce_pp([group], eps=scale)[0]]

    def own_part(episode: Played) -> Array:
        returns = to_go(np.array(episode.rewards))
        return weighted(episode, [float(returns.mean())] * len(returns))

    for size in (2, 3):
        expected = true_gradient() - expectation(own_part) / size
        np.testing.assert_allclose(expected_gradient(unscaled, size), expected, atol=1e-5)


def test_reinforce_pp_with_the_group_s_mean_is_dr_grpo_scaled() -> None:
    scale = 1e6

    def unscaled(group: Group) -> list[list[Floats]]:
        return [[a * scale for a in turns] for turns in reinforce_pp([group], baseline="group", eps=scale)[0]]

    np.testing.assert_allclose(expected_gradient(unscaled, 3), 2 / 3 * true_gradient(), atol=1e-5)


def wrong_values(trajectory: Trajectory) -> Trajectory:
    """Values of a critic that knows nothing: any function of what was said before."""
    turns, at = [], 0.3
    for turn in trajectory.turns:
        given = []
        for token in turn.completion.ids.tolist():
            given.append(at)
            at = 0.9 * at + 0.01 * (token % 7)
        turns.append(replace(turn, values=np.array(given, np.float32)))
    return replace(trajectory, turns=tuple(turns))


def test_gae_at_lambda_1_is_unbiased_whatever_the_critic() -> None:
    whole = partial(bilevel_gae, turn_lambda=1.0, token_lambda=1.0)
    close(expected_gradient(whole, 1), true_gradient())
    close(expected_gradient(whole, 1, wrong_values), true_gradient())


@pytest.mark.parametrize(("turn_lambda", "token_lambda"), [(0.0, 1.0), (0.5, 0.5), (0.95, 0.0), (0.0, 0.0)])
def test_gae_below_1_is_as_good_as_its_critic(turn_lambda: float, token_lambda: float) -> None:
    short = partial(bilevel_gae, turn_lambda=turn_lambda, token_lambda=token_lambda)
    close(expected_gradient(short, 1), true_gradient())  # the trajectories' values are the true ones
    assert np.abs(expected_gradient(short, 1, wrong_values) - true_gradient()).max() > 1e-4


def test_potential_is_unbiased_whatever_the_score() -> None:
    for weight in (0.5, 3.0):
        close(expected_gradient(partial(progress, shaping="potential", weight=weight), 2), true_gradient())


def scores(episode: Played) -> Array:
    return np.array([*(SCORES[state] for state, _, _ in episode.path), SCORES["end"]])


@pytest.mark.parametrize("score_discount", [0.0, 0.6, 1.0])
def test_progress_adds_what_it_pays_for(score_discount: float) -> None:
    def paid(episode: Played) -> Array:
        return weighted(episode, to_go(np.diff(scores(episode)), score_discount).tolist())

    found = expected_gradient(partial(progress, weight=0.5, score_discount=score_discount), 2)
    close(found, true_gradient() + 0.5 * expectation(paid))


def test_progress_undiscounted_is_a_reward_for_the_last_score() -> None:
    found = expected_gradient(partial(progress, weight=0.5, score_discount=1.0), 2)
    close(found, true_gradient(lambda e: sum(e.rewards) + 0.5 * (scores(e)[-1] - scores(e)[0])))


def test_the_score_function_is_one() -> None:
    """E over tokens of the gradient of log policy is 0, on which all of this rests."""
    for place in range(len(THETA)):
        logits = np.exp(THETA[place]) / np.exp(THETA[place]).sum()
        np.testing.assert_allclose(sum(p * score_function(place, t) for t, p in enumerate(logits)), 0, atol=1e-12)
