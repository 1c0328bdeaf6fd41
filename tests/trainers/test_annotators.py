"""What is noted on trajectories for credit: a critic's values, and the likelihood of the answer."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from agentgym.config import CreditConfig
from agentgym.trainers.credit.bilevel_gae import bilevel_gae
from agentgym.trainers.critic import ValueHead
from agentgym.trainers.gold_likelihood import GoldLikelihood
from agentgym.trainers.learner import Learner, LearnerOptions
from agentgym.trainers.losses.grpo import grpo_loss
from agentgym.trainers.paths import ids_before, paths
from agentgym.trainers.policy import Build
from agentgym.trainers.ranks.learner import make_ranked
from agentgym.types import Group, Trajectory
from tests.trainers.conftest import trajectory, turn
from tests.trainers.rows import rows, tiny


def tree(reward: float | None = 1.0) -> Trajectory:
    """Turn 0 goes on to 1 and to 2; 3 begins a branch of its own."""
    turns = [
        turn(0, None, [1, 2], [10, 11]),
        turn(1, 0, [3], [12]),
        turn(2, 0, [4, 5], [13, 14]),
        turn(3, None, [6], [15]),
    ]
    return trajectory(turns, reward)


@pytest.fixture(scope="module")
def learner() -> Learner:
    return Learner(tiny(), LearnerOptions(tokens_per_microbatch=16))


def test_paths_have_each_turn_once() -> None:
    found = list(paths(tree()))
    assert [path.ids.tolist() for path in found] == [[1, 2, 10, 11, 3, 12], [1, 2, 10, 11, 4, 5, 13, 14], [6, 15]]
    assert [path.spans for path in found] == [
        ((0, slice(2, 4)), (1, slice(5, 6))),
        ((2, slice(6, 8)),),
        ((3, slice(1, 2)),),
    ]
    assert [ids.tolist() for ids in ids_before(tree())] == [[1, 2], [1, 2, 10, 11, 3], [1, 2, 10, 11, 4, 5], [6]]


def group(*trajectories: Trajectory) -> Group:
    return Group("0:task", "task", "env", trajectories)


def test_values_are_of_the_state_before_each_token(learner: Learner) -> None:
    """Beside those of single forward passes of each branch; the rows' order and padding change nothing."""
    critic = ValueHead(learner, CreditConfig(critic="head"))
    torch.nn.init.normal_(critic.head[3].weight)  # type: ignore[index,arg-type]
    noted = critic([group(tree(), tree(None)), group(trajectory([turn(0, None, [9] * 30, [7])], 0.0))])
    assert all(t.values is None for t in noted[0].trajectories[1].turns), "an episode without a score has none"
    long = noted[1].trajectories[0].turns[0].values
    assert long is not None
    assert long.shape == (1,)
    for before, given in zip(ids_before(tree()), noted[0].trajectories[0].turns, strict=True):
        for k in range(len(given.completion.ids)):
            ids = torch.tensor([[*before.tolist(), *given.completion.ids[:k].tolist()]])
            with torch.no_grad():
                state = learner.model.base_model(input_ids=ids).last_hidden_state[0, -1]
                assert given.values is not None
                assert given.values[k] == pytest.approx(float(critic.head(state)), abs=1e-5)
    bilevel_gae(noted[0])


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("dtype", "ranks"), [("bfloat16", 1), pytest.param("float32", 2, marks=pytest.mark.slow)], ids=["bf16", "two ranks"]
)
def test_values_of_a_model_that_is_sharded(dtype: str, ranks: int, learner: Learner) -> None:
    """What one process sees of the same weights; and the learner goes on learning after."""
    groups = [group(tree(), tree(0.0)), group(trajectory([turn(0, None, [9] * 30, [7])], 0.0))]
    sharded = make_ranked(tiny(), LearnerOptions(tokens_per_microbatch=16), ranks=ranks, build=Build(dtype=dtype))
    try:
        critics = [ValueHead(one, CreditConfig(critic="head")) for one in (learner, sharded)]
        for critic in critics:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                torch.nn.init.normal_(critic.head[3].weight)  # type: ignore[index,arg-type]
        ours, theirs = (
            np.concatenate([turn.values for g in critic(groups) for t in g.trajectories for turn in t.turns])  # type: ignore[misc]
            for critic in critics
        )
        np.testing.assert_allclose(theirs, ours, atol=1e-5 if dtype == "float32" else 0.3)
        assert critics[1].learn(critics[1](groups))["critic/loss"] > 0
        assert sharded.train(rows(4), grpo_loss, seed=0)["grad_norm"] > 0
    finally:
        sharded.close()


def test_a_branch_that_begins_with_a_sampled_token_has_a_value_too(learner: Learner) -> None:
    odd = trajectory([turn(0, None, [], [10, 11])], 1.0)
    (noted,) = ValueHead(learner, CreditConfig())([group(odd)])
    assert noted.trajectories[0].turns[0].values is not None
    assert noted.trajectories[0].turns[0].values.shape == (2,)


def paid(token: int) -> Trajectory:
    """One turn after a word that tells what it will be paid."""
    return trajectory([turn(0, None, [1, token], [10, 11])], float(token == 3))


def test_a_critic_learns_what_is_paid_and_moves_nothing_else(learner: Learner) -> None:
    critic = ValueHead(learner, CreditConfig(critic="head", critic_lr=1e-2, critic_passes=8, turn_lambda=1.0))
    weights = [p.detach().clone() for p in learner.model.parameters()]
    groups = [group(paid(3), paid(4), paid(3), paid(4))]
    figures = [critic.learn(critic(groups)) for _ in range(12)]
    assert figures[0]["critic/loss"] == pytest.approx(0.5)
    assert figures[-1]["critic/loss"] < 0.01
    assert figures[-1]["critic/explained"] > 0.95
    good, bad = (critic([group(paid(token))])[0].trajectories[0].turns[0].values for token in (3, 4))
    assert good is not None
    assert bad is not None
    assert good.min() > 0.8
    assert bad.max() < 0.2
    assert all(torch.equal(a, b) for a, b in zip(weights, learner.model.parameters(), strict=True))
    assert all(p.grad is None for p in learner.model.parameters())


def test_a_critic_goes_on_from_its_state(learner: Learner) -> None:
    options = CreditConfig(critic="head", critic_lr=1e-2)
    one, other = ValueHead(learner, options), ValueHead(learner, options, seed=5)
    groups = [group(paid(3), paid(4))]
    one.learn(one(groups))
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    values = [c(groups)[0].trajectories[0].turns[0].values for c in (one, other)]
    assert values[0] is not None
    np.testing.assert_array_equal(values[0], values[1])
    one.load_state_dict({})  # a run that began without a critic
    assert ValueHead(learner, options).learn([]) == {}


class Words:
    """A tokenizer of numbers."""

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return [int(word) for word in text.split()]


def test_the_likelihood_of_the_answer_before_each_turn(learner: Learner) -> None:
    scorer = GoldLikelihood(learner, Words(), {("env", "task"): "20 21"})
    (noted,) = scorer([group(tree(), tree(None))])
    scored = noted.trajectories[0]
    expected = []
    for before in ids_before(tree()):
        ids = torch.tensor([[*before.tolist(), 20, 21]])
        with torch.no_grad():
            said = learner.model(ids).logits[0, -3:-1].log_softmax(-1)
        expected.append(float(said[[0, 1], [20, 21]].mean().exp()))
    assert scored.start_score == pytest.approx(expected[0], rel=1e-4)
    assert [t.score for t in scored.turns[:-1]] == pytest.approx(expected[1:], rel=1e-4)
    assert scored.turns[-1].score is None, "then the reward says how good the answer was"
    assert all(t.score is None for t in noted.trajectories[1].turns)


def test_the_likelihood_is_the_policy_s_own_whatever_it_plays_at() -> None:
    """At temperature 1, as IGPO's and the page's; the learner goes on at the temperature of the play."""
    warm, plain = Learner(tiny(), LearnerOptions(temperature=2.0)), Learner(tiny(), LearnerOptions())
    scores = []
    for one in (warm, plain):
        (noted,) = GoldLikelihood(one, Words(), {("env", "task"): "20 21"})([group(tree())])
        scores.append([noted.trajectories[0].start_score, *(t.score for t in noted.trajectories[0].turns[:-1])])
    assert scores[0] == pytest.approx(scores[1], rel=1e-6)
    assert warm.options.temperature == 2.0


def test_no_room_and_no_answer(learner: Learner) -> None:
    scorer = GoldLikelihood(learner, Words(), {("env", "task"): "20 21"}, max_context=6)
    scored = scorer([group(tree())])[0].trajectories[0]
    assert scored.start_score is not None
    assert [t.score is None for t in scored.turns] == [True, True, False, True], "5 and 6 tokens and the answer: 7, 8"
    (unknown,) = GoldLikelihood(learner, Words(), {})([group(tree())])
    assert unknown.trajectories[0].start_score is None
