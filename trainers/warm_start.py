"""Warm start: supervised learning on demonstrations, with the same learner as RL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np

from agentgym.config import Config
from agentgym.errors import ConfigError
from agentgym.protocols import Renderer, Reporter
from agentgym.trainers.demonstrations import (
    Demonstration,
    demonstration_rows,
    expert_demonstrations,
    read_demonstrations,
)
from agentgym.trainers.interrupt import Interrupt
from agentgym.trainers.learner import Learner, LearnerOptions
from agentgym.trainers.losses import supervised_loss
from agentgym.trainers.optim import schedule


def gather(config: Config, make_env: Callable[[str], Any]) -> list[Demonstration]:
    """The file that `sft.data` names, else the play of the envs' scripted experts."""
    if config.sft.data:
        return read_demonstrations(config.sft.data)
    found: list[Demonstration] = []
    share = max(1, config.sft.examples // len(config.all_envs))
    for spec in config.all_envs:
        played = asyncio.run(expert_demonstrations(make_env(spec.id), share, config.run.seed))
        if not played:
            raise ConfigError(
                f"env.id = {spec.id!r} has no scripted expert and its tasks no demo: "
                "give conversations with --sft.data=FILE.jsonl, or leave the warm start out with --sft.steps=0"
            )
        found += played
    return found


def warm_start(
    learner: Learner,
    renderer: Renderer,
    config: Config,
    make_env: Callable[[str], Any],
    reporter: Reporter,
    interrupt: Interrupt,
) -> None:
    """`sft.steps` steps of cross-entropy on the assistant's tokens."""
    reporter.stage("demonstrations", config.sft.examples, "conversations")
    demonstrations = gather(config, make_env)
    rows = demonstration_rows(renderer, demonstrations, config.engine.max_context)
    reporter.advance(len(rows))
    reporter.stage("warm start", config.sft.steps, "steps")
    learner.restart(
        LearnerOptions(
            lr=config.sft.lr,
            optimizer=config.sft.optimizer,
            tokens_per_microbatch=config.learner.tokens_per_microbatch,
        )
    )
    rng = np.random.default_rng(config.run.seed)
    order: list[int] = []
    for step in range(config.sft.steps):
        interrupt.check()
        while len(order) < config.sft.batch_size:
            order += rng.permutation(len(rows)).tolist()
        batch, order = order[: config.sft.batch_size], order[config.sft.batch_size :]
        scale = schedule(step, config.sft.steps, warmup=min(10, config.sft.steps // 10), decay="linear")
        metrics = learner.train([rows[i] for i in batch], supervised_loss, seed=step, lr_scale=scale)
        reporter.advance(step + 1, loss=metrics["loss"])
