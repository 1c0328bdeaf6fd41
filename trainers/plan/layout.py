"""Who sits on which card."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from agentgym.config import Config
from agentgym.errors import ConfigError
from agentgym.trainers.plan.hardware import CPU, Card, cpu_card, planned_card
from agentgym.trainers.plan.model import Model, skeleton_of
from agentgym.trainers.ranks.make import build_of
from agentgym.trainers.ranks.tensor_parallel import check_cut


@dataclass(frozen=True, slots=True)
class Layout:
    """Learner ranks and engines on their cards. `shared`: the engine lives on the learner's."""

    learner: Card
    engine: Card
    ranks: int
    tp: int
    """Ranks that share the matrices of every block, and compute the same rows."""
    replicas: int
    gpus_each: int
    shared: bool
    gpus: int
    """Cards there are; 0: none."""
    per_node: int

    @property
    def groups(self) -> int:
        """Ranks, or groups of them, with rows of their own."""
        return self.ranks // self.tp

    @property
    def taken(self) -> int:
        """Cards that the run takes."""
        learner = 0 if self.learner.is_cpu else self.ranks
        engines = 0 if self.engine.is_cpu or self.shared else self.replicas * self.gpus_each
        return learner + engines

    @property
    def nodes(self) -> int:
        """Machines of `per_node` cards; one where there are none."""
        return max(1, math.ceil(self.gpus / self.per_node))

    def link(self, cards: int) -> float:
        """Bytes/s between `cards` of the learner's, as slow as the slowest part of the way."""
        return self.learner.link if cards <= self.per_node else self.learner.net


def lay_out(config: Config, model: Model) -> Layout:
    """Raises `ConfigError` for more cards than there are, and for models and engines that cannot be cut so."""
    plan, engine = config.plan, config.engine
    card = planned_card(config)
    replicas, each = _engines(config)
    layout = Layout(
        learner=_card(card, config.learner.device, config.learner.threads),
        engine=_card(card, engine.device, engine.threads),
        ranks=config.learner.ranks,
        tp=config.learner.tensor_parallel,
        replicas=replicas,
        gpus_each=each,
        shared=card is not None and shares(config, plan.gpus),
        gpus=0,
        per_node=plan.gpus_per_node,
    )
    if layout.tp > 1:
        check_cut(skeleton_of(model.config), build_of(config), layout.ranks, layout.tp)
    _check_engines(config, layout, model)
    there = 0 if card is None else plan.gpus or layout.taken
    if layout.taken > there:
        raise ConfigError(_too_many(layout, there))
    return replace(layout, gpus=there)


def shares(config: Config, gpus: int) -> bool:
    """Whether the engine sits on the learner's card: the local one where no other is named, and SGLang where there is
    only one card, or `colocated` asks for it."""
    if config.engine.kind == "sglang":
        return gpus == 1 or config.cluster.placement == "colocated"
    other = config.engine.device.startswith("cuda:") and config.engine.device != "cuda:0"
    return config.cluster.kind == "none" and not other


def _engines(config: Config) -> tuple[int, int]:
    """(engines, cards of each)."""
    if config.engine.kind == "sglang":
        return len(config.engine.urls) or config.engine.replicas, config.engine.gpus_each
    return config.rollout.workers, 1


def _card(card: Card | None, device: str, threads: int) -> Card:
    return card if card is not None and device != "cpu" else cpu_card(threads)


def _check_engines(config: Config, layout: Layout, model: Model) -> None:
    each = layout.gpus_each
    if layout.engine.name == CPU:
        return
    if each > layout.per_node:
        raise ConfigError(
            f"engine.gpus_each = {each}: a machine has plan.gpus_per_node = {layout.per_node}; an engine stays in one"
        )
    if model.heads % each:
        raise ConfigError(f"engine.gpus_each = {each}: the model's {model.heads} attention heads cannot be cut so")
    if config.engine.kind == "local" and config.cluster.kind == "ray" and not config.rollout.gpus_each:
        raise ConfigError(
            "rollout.gpus_each = 0: on a cluster the local engine gets no card then; set it to 1, or engine.kind=sglang"
        )


def _too_many(layout: Layout, there: int) -> str:
    engines = f"{layout.replicas} engines of {layout.gpus_each}"
    where = "on the same cards" if layout.shared else f"and {engines}"
    return (
        f"learner.ranks = {layout.ranks} {where} take {layout.taken} GPUs, and plan.gpus = {there}: lower "
        "learner.ranks, engine.replicas or engine.gpus_each, or raise plan.gpus"
    )
