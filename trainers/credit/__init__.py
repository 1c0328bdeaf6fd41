"""Credit assignment: Group -> one advantage array per turn of each trajectory. One pure function a file."""

from __future__ import annotations

from functools import partial

from agentgym.config import Config
from agentgym.errors import ConfigError
from agentgym.protocols import Credit
from agentgym.trainers.credit.grpo import grpo

NAMES = ("grpo",)


def make_credit(config: Config) -> Credit:
    """The credit function that `trainer.credit` names."""
    if config.trainer.credit == "grpo":
        return partial(grpo, std=config.learner.std)
    raise ConfigError(f"trainer.credit = {config.trainer.credit!r}: unknown; known: {', '.join(NAMES)}")
