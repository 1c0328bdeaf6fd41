"""Warm start: supervised learning on demonstrations, with the same learner as RL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from agentgym.config import Config
from agentgym.trainers.batch import Row
from agentgym.trainers.demonstrations import Demonstration, expert_demonstrations, read_demonstrations
from agentgym.trainers.learner import Learner, LearnerOptions
from agentgym.trainers.losses import choose, supervised_loss
from agentgym.trainers.optim import schedule


def gather(config: Config, make_env: Callable[[str], Any]) -> list[Demonstration]:
    """The conversations of `sft.data`, else the play of the envs' scripted experts; empty where there are none."""
    if config.sft.data:
        return read_demonstrations(config.sft.data)
    share = max(1, config.sft.examples // len(config.all_envs))
    return [
        demonstration
        for spec in config.all_envs
        for demonstration in asyncio.run(expert_demonstrations(make_env(spec.label), share, config.run.seed))
    ]


def sft_options(config: Config) -> LearnerOptions:
    """The learner's options for this phase."""
    return LearnerOptions(
        lr=config.sft.lr,
        optimizer=config.sft.optimizer,
        tokens_per_microbatch=config.learner.tokens_per_microbatch,
        long_rows=config.learner.long_rows,
    )


def rl_options(config: Config) -> LearnerOptions:
    """The learner's options for RL."""
    learner, chosen = config.learner, choose(config)
    return LearnerOptions(
        lr=learner.lr,
        optimizer=learner.optimizer,
        weight_decay=learner.weight_decay,
        grad_clip=learner.grad_clip,
        minibatches=learner.minibatches,
        tokens_per_microbatch=learner.tokens_per_microbatch,
        temperature=config.rollout.temperature,
        kl=learner.kl if config.loss.kl_in == "loss" else 0.0,
        kl_estimator=chosen.kl_estimator,
        kl_correct=config.loss.kl_correct,
        entropy=config.loss.entropy,
        aggregate=chosen.aggregate,
        length=chosen.length,
        anchor=chosen.anchor,
        agreement=learner.agreement,
        long_rows=learner.long_rows,
    )


def warm_start(learner: Learner, rows: Sequence[Row], config: Config, *, start: int = 0) -> Iterator[dict[str, float]]:
    """Steps of cross-entropy on the assistant's tokens, from `start` to `sft.steps`; yields each step's metrics.

    The order of the rows is a function of the seed, so a run that was stopped goes on with the same batches.
    """
    rng = np.random.default_rng(config.run.seed)
    size, order = config.sft.batch_size, np.zeros(0, np.int64)
    for step in range(config.sft.steps):
        while len(order) < size:
            order = np.concatenate([order, rng.permutation(len(rows))])
        batch, order = order[:size], order[size:]
        if step >= start:
            scale = schedule(step, config.sft.steps, warmup=min(10, config.sft.steps // 10), decay="linear")
            yield learner.train([rows[i] for i in batch], supervised_loss, seed=step, lr_scale=scale)
