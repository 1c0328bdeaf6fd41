"""Tokens without an advantage count where their group teaches: through the loop's own step, which chooses the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from agentgym.trainers.batch import IsData, Row, always
from agentgym.trainers.credit.grpo import grpo
from agentgym.trainers.credit.turn import turn_credit
from agentgym.trainers.learner import Learner, LearnerOptions
from agentgym.trainers.loop import Loop, accepted, accepted_only
from agentgym.trainers.losses.grpo import grpo_loss
from agentgym.trainers.preparation import Preparation
from agentgym.trainers.shaping import Shaped, within_limits
from agentgym.types import Completion, Group, Message, Outcome, StopReason, Trajectory, Turn
from tests.trainers.rows import tiny


def wide(tokens: Any) -> Any:
    """Clips nothing here: how far rows are from the policy is not what is looked at."""
    return grpo_loss(tokens, clip_low=0.9, clip_high=99.0)


def played(name: str, paid: Sequence[float], lengths: Sequence[int], *, split: bool = False) -> Trajectory:
    """Turns that follow each other; `split`: as if each repeated what was before it, a row each."""
    turns: list[Turn] = []
    past = np.zeros(0, np.int32)
    for k, (reward, length) in enumerate(zip(paid, lengths, strict=True)):
        ids = ((np.arange(length) * 7 + k * 11 + sum(name.encode())) % 50).astype(np.int32)
        asked = np.array([1, 2 + k, 3], np.int32)
        context = np.concatenate([past, asked]) if split else asked
        done = Completion(ids, np.full(length, -3.0, np.float32), np.zeros(length, np.int32))
        parent = None if split or not k else k - 1
        turns.append(Turn(k, parent, context, done, Message("assistant", "x"), (), reward))
        past = np.concatenate([past, asked, ids])
    outcome = Outcome.incorrect
    return Trajectory(name, "task", "env", tuple(turns), (), sum(paid), {}, outcome, StopReason.completed)


def group(*trajectories: Trajectory) -> Group:
    return Group("0:task", "task", "env", trajectories)


def uneven(split: bool = False) -> Group:
    """The returns of the first turn are equal, those of the second are not."""
    return group(played("a", [0, 1], [6, 4], split=split), played("b", [1, 0], [6, 4], split=split))


def graded() -> Group:
    """The middle episode, much the longest, is as good as the mean."""
    return group(played("a", [0.0], [5]), played("b", [0.5], [50]), played("c", [1.0], [5]))


class Seen:
    """A loop around a learner: its gradients at each step, and the tokens that its loss was shown."""

    def __init__(self, is_data: IsData = always, preparation: Preparation | None = None, **options: Any):
        self.model, self.tokens, self.gradients = tiny(), 0, list[torch.Tensor]()
        self.learner = Learner(self.model, LearnerOptions(lr=1e-9, grad_clip=1e9, **options))
        self.learner.hold_here()
        self.learner.optimizers[0].step = self._stepped  # type: ignore[method-assign]
        nothing: Any = None
        self.loop = Loop(
            nothing, nothing, self.learner, nothing, self._loss, nothing, max_staleness=0, seed=0, is_data=is_data,
            preparation=preparation or Preparation(),
        )  # fmt: skip

    def _loss(self, tokens: Any) -> Any:
        self.tokens += len(tokens.logprobs)
        return wide(tokens)

    def _stepped(self) -> None:
        parts = [p.grad.flatten() for p in self.model.parameters() if p.grad is not None]
        self.gradients.append(torch.cat(parts))

    def __call__(self, groups: Sequence[Group], credit: Any) -> torch.Tensor:
        rows = self.loop._rows(groups, [credit(each) for each in groups])
        self.metrics = self.loop._learn(rows, 1.0)
        return sum(self.gradients)  # type: ignore[return-value]


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / one.norm())


@pytest.mark.parametrize("more", [{}, {"entropy": 0.1}, {"kl": 0.1}])
def test_merged_turns_or_a_row_each(more: dict[str, Any]) -> None:
    """`turn` credit leaves the first turns without an advantage: they count all the same."""
    merged, split = Seen(**more), Seen(**more)
    assert apart(merged([uneven()], turn_credit), split([uneven(split=True)], turn_credit)) < 1e-5
    assert merged.tokens == 20
    assert split.tokens == (20 if "entropy" in more or "kl" in more else 8), "no pass without anything to learn"
    assert split.metrics["loss"] == pytest.approx(merged.metrics["loss"], rel=1e-5, abs=1e-7) or "kl" in more


def test_the_kl_of_the_reward_is_paid_by_all() -> None:
    paid = Preparation(kl=0.1)
    merged, split = Seen(preparation=paid), Seen(preparation=paid)
    one, other = merged([uneven()], turn_credit), split([uneven(split=True)], turn_credit)
    assert split.tokens == 20
    assert split.metrics["kl_ref"] == pytest.approx(merged.metrics["kl_ref"], rel=1e-5)
    assert float(one.norm()) > 0 < float(other.norm())


def test_an_episode_as_good_as_the_mean_counts() -> None:
    """60 tokens are the denominator, 10 are run; with an entropy bonus all are."""
    seen, both = Seen(), Seen(entropy=1e-9)
    assert apart(both([graded()], grpo), seen([graded()], grpo)) < 1e-5
    assert (seen.tokens, both.tokens) == (10, 60)
    alone = Seen()
    few = replace(graded(), trajectories=graded().trajectories[::2])
    assert apart(seen.gradients[0] * 6, alone([few], lambda g: grpo(graded())[::2])) < 1e-5


@pytest.mark.parametrize("aggregate", ["sequence", "constant"])
def test_sequences_without_an_advantage_are_sequences(aggregate: Any) -> None:
    seen, both = Seen(aggregate=aggregate), Seen(aggregate=aggregate, entropy=1e-9)
    assert apart(both([graded()], grpo), seen([graded()], grpo)) < 1e-5


def test_groups_without_differences_do_not_count() -> None:
    equal = group(played("d", [1.0], [9]), played("e", [1.0], [9]))
    for more in ({}, {"entropy": 0.1, "kl": 0.1}):
        seen, with_it = Seen(**more), Seen(**more)
        torch.testing.assert_close(seen([graded()], grpo), with_it([graded(), equal], grpo), rtol=0, atol=0)
    none = Seen(kl=0.1)
    none.loop._learn(none.loop._rows([equal], [grpo(equal)]), 1.0)
    assert not none.gradients, "and alone they make no step"


def test_what_was_not_accepted_is_no_data() -> None:
    seen, alone = Seen(accepted), Seen()
    kept = [row for row in _rows(graded(), accepted_only) if row.advantages.any()]
    whole = seen([graded()], accepted_only)
    alone.learner.train(kept, wide, seed=0)
    assert apart(alone.gradients[0], whole) < 1e-6
    assert seen.tokens == 5


def _rows(given: Group, credit: Any) -> list[Row]:
    found: list[Row] = Seen().loop._rows([given], [credit(given)]).rows
    return found


def test_what_was_filtered_for_its_length_is_no_data() -> None:
    long = replace(graded().trajectories[2], stop_reason=StopReason.max_tokens)
    cut = replace(graded(), trajectories=(*graded().trajectories[:2], long))
    credit = Shaped(lambda groups: [grpo(each) for each in groups], mask_truncated=True)
    seen = Seen(within_limits, entropy=0.1)
    seen([cut], lambda each: credit([each])[0])
    assert seen.tokens == 55


def test_a_minibatch_with_nothing_to_learn_is_a_step_all_the_same() -> None:
    """As it would be if its rows were run: momentum goes on."""
    seen, both = Seen(minibatches=3), Seen(minibatches=3, entropy=1e-12)
    seen([graded()], grpo)
    both([graded()], grpo)
    assert len(seen.gradients) == len(both.gradients) == 3
    for one, other in zip(seen.gradients, both.gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)
    assert any(not one.any() for one in seen.gradients)


def test_only_rows_that_are_run_have_their_logprobs_computed_again() -> None:
    seen = Seen(preparation=Preparation(anchor="recompute"), minibatches=3, anchor="recompute")
    asked: list[int] = []
    logprobs = seen.learner.logprobs

    def counted(self: Learner, rows: Sequence[Row], *, reference: bool = False) -> Any:
        asked.append(sum(row.trained for row in rows))
        return logprobs(rows, reference=reference)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "logprobs", counted)
        seen([graded()], grpo)
    assert asked == [10]
