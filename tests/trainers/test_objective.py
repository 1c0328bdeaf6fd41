"""What is minimised on a micro-batch: aggregation, the anchor, the reference, the entropy bonus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from agentgym.trainers.batch import Row
from agentgym.trainers.learner import Learner, LearnerOptions
from agentgym.trainers.losses.aggregate import Aggregate, denominator, token_weights
from agentgym.trainers.losses.correction import Corrected
from agentgym.trainers.losses.gmpo import gmpo_loss
from agentgym.trainers.losses.grpo import grpo_loss
from agentgym.trainers.losses.gspo import gspo_loss
from agentgym.trainers.losses.kl import Estimator
from agentgym.trainers.losses.reinforce import reinforce_loss
from agentgym.trainers.losses.vespo import vespo_loss
from agentgym.trainers.micro import lay_out
from agentgym.trainers.objective import Aim, Objective
from agentgym.trainers.policy import Policy
from agentgym.types import Floats
from tests.trainers.rows import rows, tiny

CPU = torch.device("cpu")


def seen(model: Any, batch: Sequence[Row], loss: Any = grpo_loss, **options: Any) -> torch.Tensor:
    """The gradient of the only optimizer step on `batch`, flat."""
    learner = Learner(model, LearnerOptions(lr=1e-9, grad_clip=1e9, **options))
    if options.get("kl"):
        learner.reference = Policy(tiny(seed=1))
    grads: list[torch.Tensor] = []
    learner.optimizers[0].step = lambda: grads.append(learner._gradient())  # type: ignore[assignment,method-assign,misc]
    learner.train(batch, loss, seed=0)
    return grads[0]


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / one.norm())


def test_weights_and_denominators_by_hand() -> None:
    row = torch.tensor([0, 0, 0, 1, 2, 2])
    assert token_weights("token", row, 4, 7).tolist() == [1] * 6
    assert token_weights("sequence", row, 4, 7).tolist() == pytest.approx([1 / 3] * 3 + [1] + [0.5] * 2)
    assert token_weights("constant", row, 4, 7).tolist() == pytest.approx([1 / 7] * 6)
    batch = rows(5)
    nothing = replace(batch[0], mask=np.zeros_like(batch[0].mask))
    trained = sum(r.trained for r in batch)
    assert [denominator(how, [*batch, nothing]) for how in ("token", "sequence", "constant")] == [trained, 5, 5]


@pytest.mark.parametrize("aggregate", ["token", "sequence", "constant"])
@pytest.mark.parametrize("loss", [grpo_loss, gspo_loss, gmpo_loss, vespo_loss])
def test_the_gradient_does_not_depend_on_how_rows_are_cut(aggregate: Aggregate, loss: Any) -> None:
    batch = near(rows(8))
    given: dict[str, Any] = {"aggregate": aggregate, "length": 20, "kl": 0.3, "entropy": 0.1}
    whole, single = (seen(tiny(), batch, loss, tokens_per_microbatch=budget, **given) for budget in (10_000, 1))
    assert apart(whole, single) < 1e-5


def near(batch: Sequence[Row], gap: float = 0.1) -> list[Row]:
    """As if the model itself had sampled them, a few steps ago."""
    rng = np.random.default_rng(0)
    return [
        replace(row, logprobs=(p + gap * rng.normal(size=len(p)).astype(np.float32)) * row.mask)
        for row, p in zip(batch, current(batch), strict=True)
    ]


def current(batch: Sequence[Row]) -> list[Floats]:
    """The model's own logprobs."""
    return Learner(tiny(), LearnerOptions()).logprobs(batch)


def test_a_mean_of_sequences_is_what_it_says() -> None:
    batch = near(rows(4))
    alone = [seen(tiny(), [row]) for row in batch]
    assert apart(torch.stack(alone).mean(0), seen(tiny(), batch, aggregate="sequence")) < 1e-5
    lengths = [row.trained for row in batch]
    summed = torch.stack([g * n for g, n in zip(alone, lengths, strict=True)]).sum(0)
    assert apart(summed / (4 * 30), seen(tiny(), batch, aggregate="constant", length=30)) < 1e-5
    assert apart(summed / sum(lengths), seen(tiny(), batch)) < 1e-5


def value(objective: Objective, batch: Sequence[Row], done: float = 0.0) -> float:
    return float(objective(Policy(tiny()), Policy(tiny(seed=1)), lay_out(batch, CPU), done).value.detach())


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_the_distance_is_added_and_reported(estimator: Estimator) -> None:
    batch = near(rows(3))
    plain = value(Objective(grpo_loss), batch)
    objective = Objective(grpo_loss, Aim(kl=0.5, kl_estimator=estimator))
    _, metrics, _ = objective(Policy(tiny()), Policy(tiny(seed=1)), lay_out(batch, CPU))
    assert metrics["kl_ref"] > 0
    assert value(objective, batch) == pytest.approx(plain + 0.5 * metrics["kl_ref"], rel=1e-5)


def test_the_entropy_bonus_flattens_the_policy() -> None:
    batch = [replace(row, advantages=np.zeros_like(row.advantages)) for row in near(rows(6))]

    def entropy(bonus: float) -> float:
        learner = Learner(tiny(), LearnerOptions(lr=1e-2, entropy=bonus))
        return [learner.train(batch, grpo_loss, seed=i)["entropy"] for i in range(8)][-1]

    assert entropy(0.1) > entropy(0.0) + 0.01
    _, metrics, _ = Objective(grpo_loss, Aim(entropy=0.1))(Policy(tiny()), None, lay_out(batch, CPU))
    assert value(Objective(grpo_loss, Aim(entropy=0.1)), batch) == pytest.approx(-0.1 * metrics["entropy"], rel=1e-4)


def test_the_first_minibatch_is_its_own_proximal_policy() -> None:
    batch = near(rows(4))
    for anchor in ("recompute", "loglinear", "linear"):
        # u is 1, so what remains is the weight: the ratio to the policy that sampled
        found = value(Objective(Corrected(grpo_loss), Aim(anchor=anchor)), batch)  # type: ignore[arg-type]
        assert found == pytest.approx(value(Objective(reinforce_loss), batch), rel=1e-5)


def test_later_minibatches_need_the_logprobs_that_the_step_began_with() -> None:
    batch = near(rows(4))
    objective = Objective(Corrected(grpo_loss), Aim(anchor="recompute"))
    with pytest.raises(ValueError, match="preparation"):
        value(objective, batch, done=0.5)
    began = [replace(row, proximal=p) for row, p in zip(batch, current(batch), strict=True)]
    assert value(objective, began, done=0.5) == pytest.approx(value(objective, batch), rel=1e-5)


def test_ages_are_counted_from_the_version_that_is_trained() -> None:
    batch = [replace(row, version=5, versions=np.full_like(row.versions, 3)) for row in near(rows(2), gap=1.0)]
    assert set(lay_out(batch, CPU).age.tolist()) == {2.0}
    fresh = [replace(row, version=3) for row in batch]
    # of the same version all the way: there is no other policy in between, and the weight is 1
    objective = Objective(Corrected(grpo_loss), Aim(anchor="loglinear"))
    assert value(objective, fresh, done=0.5) == pytest.approx(value(Objective(grpo_loss), fresh), rel=1e-5)
    assert value(objective, batch, done=0.5) != pytest.approx(value(Objective(grpo_loss), batch), rel=1e-3)


def test_rows_to_blame_are_named() -> None:
    batch = near(rows(3))
    batch[1].advantages[batch[1].mask > 0] = np.nan
    found = Objective(grpo_loss)(Policy(tiny()), None, lay_out(batch, CPU))
    assert found.bad == (1,)
    everywhere: Callable[..., Any] = lambda tokens: (tokens.logprobs * 3e38, {})  # noqa: E731
    assert Objective(everywhere)(Policy(tiny()), None, lay_out(near(rows(3)), CPU)).bad == (0, 1, 2)
