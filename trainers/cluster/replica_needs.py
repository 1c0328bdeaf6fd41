"""What Ray keeps of a cluster for each SGLang server."""

from __future__ import annotations

from typing import Any

from agentgym.config import Config
from agentgym.errors import ConfigError
from agentgym.trainers.cluster.ray_cluster import RayCluster, load_ray

KEYS = "engine.replicas, engine.gpus_each, engine.threads"


def replica_needs(config: Config, gpus: float) -> dict[str, float]:
    """What Ray keeps for one server, as a bundle of a placement group. gpus: of the whole cluster.

    Raises `ConfigError` for more than there are, and for a place beside a learner's GPU where there is none.
    """
    engine = config.engine
    needs = {"CPU": float(engine.threads)}
    colocated = config.cluster.placement == "colocated"
    if engine.device == "cpu" or (engine.device == "auto" and not gpus):
        if colocated:
            raise ConfigError("cluster.placement = 'colocated': the cluster has no GPU")
        return needs
    wanted = engine.replicas * engine.gpus_each
    if wanted > gpus:
        raise ConfigError(
            f"engine.replicas = {engine.replicas} times engine.gpus_each = {engine.gpus_each} asks for {wanted} GPUs; "
            f"the cluster has {gpus:g}"
        )
    needs["GPU"] = float(engine.gpus_each)
    if colocated:  # on this machine, where the learner is
        needs[f"node:{load_ray().util.get_node_ip_address()}"] = 0.001
    return needs


def hire(actor: Any, config: Config, cluster: RayCluster) -> list[Any]:
    """The actor class as it is to be made for each replica, in a place where there is room for its server; anywhere
    for servers that run already. Raises `ConfigError` where the cluster has no room."""
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    options: dict[str, Any] = {"max_restarts": -1, "max_concurrency": 10_000, "num_cpus": 0}
    if config.engine.urls:
        return [actor.options(**options)] * len(config.engine.urls)
    count, needs = config.engine.replicas, replica_needs(config, cluster.gpus)
    room = cluster.room([needs] * count, "SGLang servers", KEYS)
    options |= {"num_cpus": needs["CPU"], "num_gpus": needs.get("GPU", 0)}
    return [
        actor.options(
            **options,
            scheduling_strategy=PlacementGroupSchedulingStrategy(room, placement_group_bundle_index=i),
        )
        for i in range(count)
    ]
