"""The learner that a config asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from agentgym.config import Config
from agentgym.loading import is_reference
from agentgym.trainers.learner import Learner, LearnerOptions
from agentgym.trainers.lora import Lora
from agentgym.trainers.models import pick_device
from agentgym.trainers.policy import Build
from agentgym.trainers.ranks.followers import Starter
from agentgym.trainers.ranks.learner import make_ranked


def build_of(config: Config) -> Build:
    """How the model is to be run."""
    learner = config.learner
    return Build(
        layout=learner.layout,
        attention=learner.attention,
        recompute=learner.recompute,
        compile=learner.compile,
        dtype=config.model.dtype,
        routing_replay=learner.routing_replay,
        lora=Lora(config.model.lora_rank, config.model.lora_alpha, tuple(config.model.lora_targets)),
    )


def make_learner(
    config: Config, model: Any, options: LearnerOptions, note: Callable[[str], None] = lambda text: None
) -> Learner:
    """Of `model`, which this process has whole. `note` hears where ranks are. Raises `ConfigError`."""
    learner = config.learner
    device, build = pick_device(learner.device), build_of(config)
    if learner.ranks == 1 and build.dtype == "float32":  # else FSDP casts, also where nothing is sharded
        return Learner(model, options, torch.device(device), build, note=note)
    starter: Starter | None = None
    if learner.ranks > 1 and config.cluster.kind == "ray":
        from agentgym.trainers.cluster.ranks import RayRanks

        starter = RayRanks(config, device, note)
    made = make_ranked(
        model,
        options,
        ranks=learner.ranks,
        tensor_parallel=learner.tensor_parallel,
        device=device,
        build=build,
        threads=learner.threads,
        timeout=learner.timeout,
        preload=(config.trainer.loss,) if starter is None and is_reference(config.trainer.loss) else (),
        starter=starter,
    )
    made.note = note
    return made
