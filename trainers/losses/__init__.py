"""Losses: pure functions of token tensors. One file each."""

from __future__ import annotations

from functools import partial

from agentgym.config import Config
from agentgym.errors import ConfigError
from agentgym.protocols import Loss
from agentgym.trainers.losses.grpo import grpo_loss
from agentgym.trainers.losses.kl import k2_penalty
from agentgym.trainers.losses.supervised import supervised_loss

__all__ = ["NAMES", "k2_penalty", "make_loss", "supervised_loss"]

NAMES = ("grpo",)


def make_loss(config: Config) -> Loss:
    """The loss that `trainer.loss` names."""
    if config.trainer.loss == "grpo":
        return partial(grpo_loss, clip_low=config.learner.clip_low, clip_high=config.learner.clip_high)
    raise ConfigError(f"trainer.loss = {config.trainer.loss!r}: unknown; known: {', '.join(NAMES)}")
