"""Whether engine and learner can be placed as `cluster.placement` asks."""

from __future__ import annotations

import torch

from agentgym.config import Config
from agentgym.errors import ConfigError
from agentgym.trainers.annotate import Annotator
from agentgym.trainers.learner import Learner
from agentgym.trainers.turns import Alternating, Apart


def check_placement(config: Config) -> None:
    """By the configuration alone. Raises `ConfigError` where engine and learner cannot share a GPU as it asks."""
    if config.cluster.placement == "colocated" and (reason := _why_not(config)):
        raise ConfigError(f"cluster.placement = 'colocated': {reason}")


def make_turns(config: Config, learner: Learner, annotator: Annotator) -> Apart:
    """Who has the GPU when. Raises `ConfigError` where they cannot share one on this machine, or with this credit."""
    if config.cluster.placement == "split":
        return Apart()
    if reason := _why_not_here(learner) or _why_not_with(annotator):
        raise ConfigError(f"cluster.placement = 'colocated': {reason}")
    return Alternating(learner)


def _why_not(config: Config) -> str:
    """Empty where it can be."""
    engine, rollout = config.engine, config.rollout
    if engine.kind != "sglang" or config.cluster.kind != "ray":
        return "it is for SGLang's servers on a Ray cluster: set engine.kind=sglang and --cluster=ray"
    if engine.urls:
        return "the server has to be started by the run: leave out engine.urls"
    if engine.device == "cpu" or config.learner.device == "cpu":
        return "a server on a CPU cannot give its memory back, and a learner there needs none of a GPU's: use split"
    if (config.learner.ranks, engine.replicas, engine.gpus_each) != (1, 1, 1):
        return "one rank and one server share one GPU: set learner.ranks, engine.replicas and engine.gpus_each to 1"
    if rollout.max_staleness:
        return (
            f"rollout.max_staleness = {rollout.max_staleness} asks to play while the learner learns, and they take "
            "turns: set it to 0"
        )
    if engine.sync != "disk":
        return f"engine.sync = {engine.sync!r} takes weights from the GPU, which is then the engine's: set it to disk"
    return ""


def _why_not_here(learner: Learner) -> str:
    if learner.device.type != "cuda":
        return "the learner is on the CPU, for no GPU is visible: use split"
    if (count := torch.cuda.device_count()) != 1:
        return f"{count} GPUs are visible: name the one to share, by CUDA_VISIBLE_DEVICES of the run and of the cluster"
    return ""


def _why_not_with(annotator: Annotator) -> str:
    if type(annotator) is Annotator:
        return ""
    return "this credit asks the learner while episodes are played: use another, or split"
