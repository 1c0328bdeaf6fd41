"""The controls: rewards dealt anew within a group, and weights on a group's best episodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from agentgym.trainers.loop import accepted_only, shuffled_rewards
from agentgym.types import Group

MakeGroup = Callable[..., Group]


def rewards(group: Group) -> list[float | None]:
    return [t.reward for t in group.trajectories]


def test_shuffling_deals_the_same_rewards_and_leaves_the_unscored(make_group: MakeGroup) -> None:
    given = [1.0, None, 0.0, 0.5, 0.25, None, 0.75]
    group = make_group(given)
    dealt = shuffled_rewards(0)(group)
    assert sorted(r for r in rewards(dealt) if r is not None) == sorted(r for r in given if r is not None)
    assert [r is None for r in rewards(dealt)] == [r is None for r in given]
    assert [t.id for t in dealt.trajectories] == [t.id for t in group.trajectories]
    assert rewards(group) == given, "the group itself is left as it was"
    assert rewards(shuffled_rewards(0)(group)) == rewards(dealt), "a function of seed and group"
    others = [rewards(shuffled_rewards(seed)(group)) for seed in range(1, 6)]
    assert any(other != rewards(dealt) for other in others)


def test_shuffled_rewards_say_nothing_of_the_episodes(make_group: MakeGroup) -> None:
    """Over many groups an episode that earned 1 is dealt 1 as often as any other."""
    group = make_group([1.0, 0.0, 0.0, 0.0])
    shuffle = shuffled_rewards(3)
    kept = np.mean([rewards(shuffle(replace(group, id=f"0:{i}")))[0] == 1.0 for i in range(2000)])
    assert abs(kept - 0.25) < 0.04  # 4 standard errors


def weights_of(group: Group) -> list[set[float]]:
    return [{float(w) for turn in t for w in turn} for t in accepted_only(group)]


def test_only_the_best_paid_are_learnt(make_group: MakeGroup) -> None:
    assert weights_of(make_group([0.5, 1.0, None, 1.0, 0.0])) == [{0.0}, {1.0}, {0.0}, {1.0}, {0.0}]
    assert weights_of(make_group([0.0, 0.0])) == [{0.0}, {0.0}], "no success, nothing to learn"
    assert weights_of(make_group([None, None])) == [{0.0}, {0.0}]


def test_a_weight_for_each_token_sampled(make_group: MakeGroup) -> None:
    group = make_group([1.0, 0.0], turns=[3, 1])
    shapes = [[len(w) for w in turns] for turns in accepted_only(group)]
    assert shapes == [[len(turn.completion.ids) for turn in t.turns] for t in group.trajectories]


def test_what_turns_were_paid_and_their_scores_are_dealt_with_the_reward(make_group: MakeGroup) -> None:
    """Else credit by turns would go on learning from the true rewards. A longer episode's end counts for the last
    turn, and what is paid stays what the reward says."""
    given = make_group([1.0, 0.0, 2.0], turns=[3, 1, 2])
    paid = [(0.25, 0.25, 0.5), (0.0,), (1.5, 0.5)]
    trajectories = tuple(
        replace(
            t,
            start_score=float(i),
            turns=tuple(replace(turn, reward=r, score=i + r) for turn, r in zip(t.turns, own, strict=True)),
        )
        for i, (t, own) in enumerate(zip(given.trajectories, paid, strict=True))
    )
    group = replace(given, trajectories=trajectories)
    others = {t.start_score: t for t in trajectories}
    moved = 0
    for seed in range(8):
        for before, dealt in zip(trajectories, shuffled_rewards(seed)(group).trajectories, strict=True):
            source = others[dealt.start_score]
            moved += source is not before
            assert dealt.reward == source.reward == sum(turn.reward for turn in dealt.turns)
            assert [turn.completion for turn in dealt.turns] == [turn.completion for turn in before.turns]
            shared = min(len(dealt.turns), len(source.turns)) - 1
            assert [t.reward for t in dealt.turns[:shared]] == [t.reward for t in source.turns[:shared]]
            last = [t.score for t in dealt.turns if t.score is not None][-1]
            assert last == source.turns[-1].score
    assert moved
