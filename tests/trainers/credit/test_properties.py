"""What holds for every credit there is, on any group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentgym.config import load_config
from agentgym.trainers.batch import build_rows
from agentgym.trainers.credit import NAMES, each, make_credit
from agentgym.trainers.credit.gigpo import gigpo
from agentgym.trainers.credit.grpo import grpo, grpo_over_batch
from agentgym.trainers.credit.progress import progress
from agentgym.trainers.credit.reinforce_pp import reinforce_pp
from agentgym.trainers.credit.whiten import whitened
from agentgym.types import Completion, Floats, Group, Message, Outcome, StopReason, Trajectory, Turn
from tests.trainers.credit.builders import group, played, scored

ALL: dict[str, Callable[..., list[list[list[Floats]]]]] = {
    **{name: make_credit(load_config(None, [f"--trainer.credit={name}", "--credit.critic=head"])) for name in NAMES},
    "grpo, batch": grpo_over_batch,
    "grpo, whitened": whitened(each(grpo)),
    "reinforce_pp, group": partial(reinforce_pp, baseline="group"),
    "gigpo, conversation": each(partial(gigpo, anchor="conversation", discount=0.9)),
    "progress, potential": each(partial(progress, shaping="potential", discount=0.5)),
}
QUIET = settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no defect
SMALL = st.floats(-5, 5, width=32)


@st.composite
def turns(draw: st.DrawFn) -> tuple[Turn, ...]:
    made: list[Turn] = []
    for k in range(draw(st.integers(0, 4))):
        count = draw(st.integers(0, 3))
        completion = Completion(np.full(count, 5, np.int32), np.zeros(count, np.float32), np.zeros(count, np.int32))
        said = draw(st.sampled_from(["", "a", "b"]))
        made.append(
            Turn(
                k,
                draw(st.none() | st.integers(0, k - 1)) if k else None,
                np.array([1, 2], np.int32),
                completion,
                Message("assistant", draw(st.sampled_from("xy"))),
                (Message("tool", said),) if said else (),
                draw(st.sampled_from([0.0, 0.0, 1.0]) | SMALL),
                draw(st.sampled_from(["agent", "other"])),
                score=draw(SMALL),
                values=np.array(draw(st.lists(SMALL, min_size=count, max_size=count)), np.float32),
            )
        )
    return tuple(made)


@st.composite
def groups(draw: st.DrawFn) -> Group:
    made = []
    for i in range(draw(st.integers(1, 5))):
        mine = draw(turns())
        reward = draw(st.none() | st.just(float(sum(t.reward for t in mine))) | SMALL)
        outcome = Outcome.unscored if reward is None else Outcome.incorrect
        agent = draw(st.sampled_from(["agent", "agent", "other"]))
        prompt = (Message("user", "go"),)
        made.append(
            Trajectory(
                f"0:t/{i}",
                "t",
                "e",
                mine,
                prompt,
                reward,
                {},
                outcome,
                StopReason.completed,
                "",
                agent,
                start_score=0.5,
            )
        )
    return Group("0:t", "t", "e", tuple(made))


@pytest.mark.parametrize("name", ALL)
@settings(QUIET, max_examples=25)
@given(st.lists(groups(), min_size=1, max_size=2))
def test_shapes_zeros_and_finite_numbers(name: str, given: list[Group]) -> None:
    credits = ALL[name](given)
    assert len(credits) == len(given)
    for one, credit in zip(given, credits, strict=True):
        assert len(credit) == len(one.trajectories)
        for trajectory, rows in zip(one.trajectories, credit, strict=True):
            assert [row.shape for row in rows] == [t.completion.ids.shape for t in trajectory.turns]
            assert all(row.dtype == np.float32 and np.isfinite(row).all() for row in rows)
            if trajectory.reward is None:
                assert not any(row.any() for row in rows)
    build_rows(given, credits, version=0, max_staleness=0)  # the learner takes them


def flat(rows: list[Floats]) -> Floats:
    return np.concatenate([*rows, np.zeros(0, np.float32)])


@pytest.mark.parametrize("name", ALL)
@settings(QUIET, max_examples=15)
@given(groups(), st.randoms(use_true_random=False))
def test_the_order_of_trajectories_does_not_matter(name: str, given: Group, rng: object) -> None:
    order = list(range(len(given.trajectories)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    turned = replace(given, trajectories=tuple(given.trajectories[i] for i in order))
    before, after = ALL[name]([given])[0], ALL[name]([turned])[0]
    for place, i in enumerate(order):
        np.testing.assert_allclose(flat(after[place]), flat(before[i]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ALL)
@settings(QUIET, max_examples=15)
@given(groups())
def test_the_unscored_are_in_no_statistic(name: str, given: Group) -> None:
    kept = [i for i, t in enumerate(given.trajectories) if t.reward is not None]
    without = replace(given, trajectories=tuple(given.trajectories[i] for i in kept))
    whole, part = ALL[name]([given])[0], ALL[name]([without])[0]
    for place, i in enumerate(kept):
        np.testing.assert_array_equal(flat(part[place]), flat(whole[i]))


@pytest.mark.parametrize("name", sorted(set(ALL) - {"bilevel_gae"}))
@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1])
def test_no_differences_are_exactly_zero(name: str, reward: float) -> None:
    """Else rounding would pass for something to learn, and the ledger would call such a group trained."""
    one = scored(played([0.0, 0.0, reward]), 0.0, 0.1, 0.2, 0.7)
    credit = ALL[name]([group(*[one] * 3)])[0]
    assert not any(row.any() for rows in credit for row in rows)
