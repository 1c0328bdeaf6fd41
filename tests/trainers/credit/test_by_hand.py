"""Each estimator on cases worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from agentgym.errors import ConfigError
from agentgym.trainers.batch import build_rows
from agentgym.trainers.credit import each
from agentgym.trainers.credit.bilevel_gae import bilevel_gae
from agentgym.trainers.credit.gigpo import gigpo
from agentgym.trainers.credit.grpo import grpo, grpo_over_batch
from agentgym.trainers.credit.progress import progress
from agentgym.trainers.credit.reinforce_pp import reinforce_pp
from agentgym.trainers.credit.rloo import rloo
from agentgym.trainers.credit.turn import turn_credit
from agentgym.trainers.credit.whiten import whitened
from agentgym.types import Message
from tests.trainers.credit.builders import firsts, group, played, scored, told, valued


def test_rloo_leaves_its_own_out() -> None:
    credit = rloo(group(played([0, 1]), played([0]), played([0, 0, 0.5])))
    assert firsts(credit) == [[0.75, 0.75], [-0.75], [0, 0, 0]]


def test_turn_is_paid_from_the_turn_on() -> None:
    """Returns: [3, 2], [1], [1, 1, 1]. From the second turn on the other has 0, and so from the third."""
    credit = turn_credit(group(played([1, 2]), played([1]), played([0, 0, 1])))
    assert firsts(credit) == [[2, 1.5], [-1], [-1, 0, 1]]
    discounted = turn_credit(group(played([1, 2]), played([0])), discount=0.5)
    assert firsts(discounted) == [[2, 2], [-2]]


def test_what_no_turn_was_paid_counts_for_the_last() -> None:
    """A group's own reward without the turns' (another tool's files): as if it was paid at the end."""
    bare = replace(played([0, 0]), reward=1.0)
    assert firsts(turn_credit(group(bare, played([0, 0])))) == [[1, 1], [-1, -1]]


def test_what_tools_said_is_neither_paid_nor_cuts_off() -> None:
    """In the rows that the learner gets, the tokens between turns have no advantage, and the turn before a tool's
    answer has its share of what comes after it."""
    one, other = played([0, 0, 1], tokens=2), played([0], tokens=1)
    both = group(one, other)
    rows = build_rows([both], [turn_credit(both)], version=0, max_staleness=0).rows
    assert rows[0].advantages.tolist() == [0, 0, 1, 1] * 3
    assert rows[0].mask.tolist() == [0, 0, 1, 1] * 3
    assert rows[1].advantages.tolist() == [0, 0, -1]


def test_a_rewritten_past_does_not_cut_reward_off() -> None:
    whole = played([0, 0, 1])
    branched = replace(whole, turns=tuple(replace(t, parent=None) for t in whole.turns))
    other = played([0, 0, 0])
    assert firsts(turn_credit(group(branched, other))) == firsts(turn_credit(group(whole, other)))
    both = group(branched, other)
    rows = build_rows([both], [turn_credit(both)], version=0, max_staleness=0).rows
    assert [row.advantages.tolist() for row in rows[:3]] == [[0, 0, 1, 1]] * 3


def test_gigpo_compares_turns_that_began_alike() -> None:
    """Both first turns began with the prompt; the second ones after "a", only one after "b"."""
    one, two, three = told(played([0, 1]), "a"), told(played([0, 0]), "a"), told(played([0, 0.5]), "b")
    episode = [0.5, -0.5, 0.0]
    credit = gigpo(group(one, two, three), std=False, step_weight=2.0)
    assert firsts(credit) == [
        [episode[0] + 2 * 0.5, episode[0] + 2 * 0.5],
        [episode[1] - 2 * 0.5, episode[1] - 2 * 0.5],
        [0, 0],
    ]


def test_gigpo_anchors() -> None:
    """The same answer after other words: one state to "observation", two to "conversation"."""
    one, two = told(played([0, 1]), "a"), told(played([0, 0]), "a")
    two = replace(two, turns=(replace(two.turns[0], message=Message("assistant", "y")), two.turns[1]))
    steps = [gigpo(group(one, two), std=False, anchor=anchor) for anchor in ("observation", "conversation")]
    assert firsts(steps[0]) == [[1, 1], [-1, -1]]
    assert firsts(steps[1]) == [[1, 0.5], [-1, -0.5]]
    asked = replace(two, turns=tuple(replace(t, agent_id="other") for t in two.turns))
    assert firsts(gigpo(group(one, asked), std=False)) == [[0.5, 0.5], [-0.5, -0.5]], "another agent's is another state"


def test_gigpo_of_a_state_that_is_come_back_to() -> None:
    """ "busy" twice: both turns after it are compared with each other. The paper's discounting by turns."""
    one = told(played([0, 0, 1]), "busy", "busy")
    credit = gigpo(group(one, played([0])), std=False, discount=0.5)
    assert firsts(credit) == [[0.5 + 0.125, 0.5 - 0.25, 0.5 + 0.25], [-0.5 - 0.125]]


def test_reinforce_pp_normalises_over_the_batch() -> None:
    groups = [group(played([1]), played([1, 0])), group(played([0]), played([0, 0]))]
    credit = reinforce_pp(groups, eps=0.0)
    # trajectories weigh alike: x = 1, (1, 0), 0, (0, 0); mean (1 + .5) / 4, mean square (1 + .5) / 4
    mean, square = 0.375, 0.375
    scale = math.sqrt(square - mean * mean)
    assert firsts(credit[0]) == [[round((1 - mean) / scale, 5)], [round((x - mean) / scale, 5) for x in (1, 0)]]
    assert firsts(credit[1]) == [[round(-mean / scale, 5)], [round(-mean / scale, 5)] * 2]
    by_group = reinforce_pp(groups, baseline="group", eps=0.0)
    assert firsts(by_group[0]) == [[0], [0, 0]]
    assert firsts(by_group[1]) == [[0], [0, 0]]
    lone = reinforce_pp([group(played([1])), group(played([0]))], eps=0.0)
    assert [firsts(credit) for credit in lone] == [[[1]], [[-1]]], "one episode a task will do"


def test_reinforce_pp_with_the_group_s_mean_leaves_groups_without_differences_at_0() -> None:
    """Exactly: rounding in the batch's mean, which is 0, would make tokens of them be trained."""
    groups = [group(played([0.1]), played([0.7]), played([0.4])), group(played([0.3]), played([0.3]))]
    credit = reinforce_pp(groups, baseline="group")
    assert not any(advantages.any() for turns in credit[1] for advantages in turns)
    assert all(advantages.any() for turns in credit[0][:2] for advantages in turns)


def test_grpo_over_the_deviation_of_all_rewards() -> None:
    groups = [group(played([1]), played([0])), group(played([2]), played([2], scored=False), played([2]))]
    credit = grpo_over_batch(groups, eps=0.0)
    # 1, 0, 2 and 2: mean 1.25, mean square 9 / 4
    scale = math.sqrt(9 / 4 - 1.25**2)
    assert firsts(credit[0]) == [[round(0.5 / scale, 5)], [round(-0.5 / scale, 5)]]
    assert firsts(credit[1]) == [[0], [0], [0]]


def test_whitened_over_the_tokens_of_the_batch() -> None:
    """A token is one vote: +1, +1, -1 of the first group and 0, 0, 0 of the second, unscored ones in no statistic."""
    one = group(played([1], tokens=2), played([-1], tokens=1))
    other = group(played([3], tokens=3), played([9], scored=False))
    credit = whitened(each(lambda given: grpo(given, std=False)), eps=0.0)([one, other])
    mean = 1 / 6
    scale = math.sqrt(3 / 6 - mean**2)
    assert firsts(credit[0]) == [[round((1 - mean) / scale, 5)], [round((-1 - mean) / scale, 5)]]
    assert firsts(credit[1]) == [[round(-mean / scale, 5)], [0]]


def test_gae_by_hand() -> None:
    """Values .5 .4 | .3 .2, paid 0 and 1, discount and lambda .5 over turns, .5 over tokens.

    Turns: d2 = 1 - .3 = .7, d1 = 0 + .5 * .3 - .5 = -.35; A2 = .7, A1 = -.35 + .25 * .7 = -.175.
    Tokens of turn 2: last .7 + .3 - .2 = .8, first .2 - .3 + .5 * .8 = .3; of turn 1: -.175 + .5 - .4 = -.075,
    and .4 - .5 + .5 * -.075 = -.1375.
    """
    one = valued(played([0, 1]), [0.5, 0.4], [0.3, 0.2])
    credit = bilevel_gae(group(one), discount=0.5, turn_lambda=0.5, token_discount=1.0, token_lambda=0.5)[0]
    np.testing.assert_allclose(credit[0], [-0.1375, -0.075], atol=1e-6)
    np.testing.assert_allclose(credit[1], [0.3, 0.8], atol=1e-6)


def test_gae_passes_over_a_turn_without_tokens() -> None:
    one = valued(played([0, 1]), [0.5, 0.4], [0.3, 0.2])
    empty = valued(played([0], tokens=0), [])
    turns = (one.turns[0], replace(empty.turns[0], id=1, parent=0), replace(one.turns[1], id=2, parent=1))
    credit = bilevel_gae(group(replace(one, turns=turns)), turn_lambda=1.0)[0]
    np.testing.assert_allclose(np.concatenate(credit), [0.5, 0.6, 0.7, 0.8], atol=1e-6)


def test_gae_needs_values() -> None:
    with pytest.raises(ConfigError, match=r"0:task/0 have no values.*value head.*credit\.critic"):
        bilevel_gae(group(played([0, 1])))
    with pytest.raises(ConfigError, match="turn 0 has 1 values for 2 tokens"):
        bilevel_gae(group(valued(played([1]), [0.0])))
    assert firsts(bilevel_gae(group(played([1], scored=False)))) == [[0]]


def test_progress_by_hand() -> None:
    """Scores 0 -> .5 -> 1, paid 1 at the end, beside one that got nowhere."""
    one, other = scored(played([0, 1]), 0.0, 0.5, 1.0), scored(played([0, 0]), 0.0, 0.0, None)
    both = group(one, other)
    assert firsts(progress(both, weight=1.0)) == [[1.5, 1.5], [-1.5, -1.5]]
    assert firsts(progress(both, weight=1.0, score_discount=1.0)) == [[2, 1.5], [-2, -1.5]]
    assert firsts(progress(both, weight=1.0, score_discount=0.5)) == [[1.75, 1.5], [-1.75, -1.5]]
    assert firsts(progress(both, weight=1.0, shaping="potential")) == [[1, 0.5], [-1, -0.5]]
    assert firsts(progress(both, weight=0.0)) == [[1, 1], [-1, -1]]


def test_progress_needs_scores() -> None:
    none = group(played([0, 1]), scored(played([0, 0]), 0.0, 0.0, 0.0))
    with pytest.raises(ConfigError, match=r"no state of env \(episode 0:task/0\) has a score: write progress"):
        progress(none)


def test_an_agent_is_compared_with_itself_alone() -> None:
    """Two agents in each episode, the other's pay on another scale; and both in one trajectory."""
    buyer, seller = {"agent_id": "buyer"}, {"agent_id": "seller"}
    both = group(played([0, 1], **buyer), played([100], **seller), played([0, 0], **buyer), played([300, 0], **seller))
    for credit in (rloo(both), turn_credit(both)):
        assert firsts(credit)[0] == [1, 1]
        assert firsts(credit)[2] == [-1, -1]
        assert firsts(credit)[1] == [-200]
    one, two = played([0, 0, 0, 1]), played([0, 0])
    one = replace(one, turns=tuple(replace(t, agent_id="ab"[t.id % 2]) for t in one.turns))
    two = replace(two, turns=tuple(replace(t, agent_id="ba"[t.id % 2], reward=float(t.id)) for t in two.turns))
    two = replace(two, reward=1.0)
    # returns of a: [1, 1] and [1]; of b: [1, 1] and [1]: its first turn beside the other's first, wherever that is
    assert firsts(turn_credit(group(one, two))) == [[0, 0, 1, 1], [0, 0]]
