"""Losses: pure functions of token tensors, one file each; `make_loss` is the one that a config names."""

from __future__ import annotations

from agentgym.config import Config
from agentgym.protocols import Loss
from agentgym.trainers.losses.choice import NAMES, Choice, choose
from agentgym.trainers.losses.supervised import supervised_loss

__all__ = ["NAMES", "Choice", "choose", "make_loss", "supervised_loss"]


def make_loss(config: Config) -> Loss:
    """The loss that `trainer.loss` and the section `loss` ask for; `ConfigError` where they cannot be had."""
    return choose(config).loss
