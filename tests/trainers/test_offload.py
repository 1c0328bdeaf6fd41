"""What a learner keeps is moved whole, and learning goes on as if it had not been."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from agentgym.trainers.learner import Learner, LearnerOptions
from agentgym.trainers.losses.grpo import grpo_loss
from agentgym.trainers.offload import move
from tests.trainers.rows import rows, tiny

OPTIONS = LearnerOptions(lr=1e-3, optimizer="muon", minibatches=2, tokens_per_microbatch=128, kl=0.1, agreement=0.1)


def learned() -> Learner:
    learner = Learner(tiny(), OPTIONS)
    learner.hold_here()
    learner.train(rows(8), grpo_loss, seed=0)
    return learner


def held(learner: Learner) -> list[torch.Tensor]:
    """All tensors of a learner that are more than a number."""
    found: list[Any] = [learner.agreement._last]
    for model in (learner.model, learner.reference):
        found += [*model.parameters(), *model.buffers()]
    found += [
        value for optimizer in learner.optimizers for state in optimizer.state.values() for value in state.values()
    ]
    return [tensor for tensor in found if torch.is_tensor(tensor) and tensor.dim()]


def test_nothing_stays_on_the_device() -> None:
    learner = learned()
    assert len(held(learner)) > 50
    move(learner, torch.device("meta"))
    assert {tensor.device.type for tensor in held(learner)} == {"meta"}


def test_learning_goes_on_as_if_nothing_had_been_moved() -> None:
    stayed, moved = learned(), learned()
    moved.offload()
    moved.onload()
    for learner in (stayed, moved):
        learner.train(rows(8, 1), grpo_loss, seed=1)
    mine, its = stayed.weights(), moved.weights()
    assert all(torch.equal(mine[name], its[name]) for name in mine)


@pytest.mark.gpu
def test_a_gpu_is_free_while_the_learner_is_away() -> None:
    learner = Learner(tiny(), OPTIONS, torch.device("cuda"))
    learner.hold_here()
    learner.train(rows(8), grpo_loss, seed=0)
    used = torch.cuda.memory_allocated()
    learner.offload()
    assert torch.cuda.memory_allocated() < used / 10
    assert {tensor.device.type for tensor in held(learner)} == {"cpu"}
    learner.onload()
    assert {tensor.device.type for tensor in held(learner)} == {"cuda"}
    learner.train(rows(8, 1), grpo_loss, seed=1)
