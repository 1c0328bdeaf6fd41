"""What a run needs around it, looked at before anything costs time: devices, servers, a cluster."""

from __future__ import annotations

from agentgym.config import Config
from agentgym.errors import ConfigError, EngineFault
from agentgym.trainers.models import pick_device

ANSWER_SECONDS = 30.0


def check_surroundings(config: Config) -> None:
    """Raises `ConfigError` for a GPU that is not there, servers that do not answer or have no sglang to start with, and
    a cluster that cannot be reached. What only shows when it is started is told then."""
    pick_device(config.learner.device)
    plays = bool(config.trainer.steps or config.eval.tasks)
    if config.cluster.kind == "ray":  # servers are the cluster's to start or to reach: this machine may see neither
        from agentgym.trainers.cluster.ray_cluster import check_address, load_ray

        load_ray()
        check_address(config.cluster.address)
    elif plays and config.engine.kind == "sglang":
        _check_servers(config)


def _check_servers(config: Config) -> None:
    from agentgym.engines.sglang.client import ServerClient
    from agentgym.engines.sglang.facts import ask_facts
    from agentgym.engines.sglang.make import server_commands

    if not config.engine.urls:
        server_commands(config)
    for url in config.engine.urls:
        try:
            ask_facts(ServerClient(url), timeout=min(ANSWER_SECONDS, config.engine.timeout))
        except EngineFault as e:
            raise ConfigError(f"engine.urls: {e}") from None
