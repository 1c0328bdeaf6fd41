"""The connection to a Ray cluster, or one of this machine's own, and room on it."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from typing import Any

from agentgym.config import Config
from agentgym.engines.sglang.process import LOCAL
from agentgym.errors import ConfigError

CONNECT_SECONDS = 10.0
WORKER_KEYS = "rollout.workers, rollout.cpus_each, rollout.gpus_each"


class RayCluster:
    """Connects when made; `close` gives back what was reserved and ends a cluster that was started here."""

    def __init__(self, config: Config):
        self._ray = load_ray()
        check_address(config.cluster.address)
        self._patience = config.cluster.patience
        self._joined = bool(self._ray.is_initialized())
        self._groups: list[Any] = []
        if not self._joined:
            self._connect(config)

    def _connect(self, config: Config) -> None:
        # a process that trains is not to be asked whether Ray may report home, nor to carry its dashboard
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        address = config.cluster.address
        ranks = (config.learner.ranks - 1) * config.learner.threads
        needed = config.rollout.workers * config.rollout.cpus_each + _for_servers(config) + ranks
        try:
            if address:
                self._ray.init(address=address, log_to_driver=True, logging_level="error")
            else:
                cores = max(os.cpu_count() or 1, int(-(-needed // 1)))
                # a plain init would join whatever cluster it finds on this machine
                own = {"address": "local", "num_cpus": cores, "include_dashboard": False}
                self._ray.init(**own, log_to_driver=True, logging_level="error")
        except (ConnectionError, ValueError, RuntimeError, OSError) as e:
            if not address:
                raise ConfigError(f"cluster.kind = 'ray': no cluster can be started here ({_line(e)})") from None
            raise _not_joined(address, e) from None

    @property
    def gpus(self) -> float:
        """Of all its machines, taken or not."""
        return float(self._ray.cluster_resources().get("GPU", 0.0))

    def room(
        self,
        bundles: Sequence[dict[str, float]],
        what: str = "workers",
        keys: str = WORKER_KEYS,
        strategy: str = "SPREAD",
    ) -> Any:
        """A placement group with room for each bundle, by Ray's `strategy`: spread over the machines, or packed.

        Raises `ConfigError` without room, naming `what` they are for and the `keys` that say so."""
        from ray.util.placement_group import placement_group

        group = placement_group([dict(bundle) for bundle in bundles], strategy=strategy)
        self._groups.append(group)
        if not group.wait(self._patience):
            there = {name: count for name, count in self._ray.cluster_resources().items() if name in ("CPU", "GPU")}
            asked = {name: sum(bundle.get(name, 0) for bundle in bundles) for name in ("CPU", "GPU")}
            raise ConfigError(
                f"the cluster has no room for {len(bundles)} {what} of {dict(bundles[0])} within {self._patience:g} s"
                f": {asked['CPU']:g} CPU and {asked['GPU']:g} GPU are asked for, {there.get('CPU', 0):g} and "
                f"{there.get('GPU', 0):g} are there ({keys})"
            )
        return group

    def close(self) -> None:
        from ray.util.placement_group import remove_placement_group

        with contextlib.suppress(Exception):  # the cluster may be gone
            while self._groups:
                remove_placement_group(self._groups.pop())
        if not self._joined and self._ray.is_initialized():
            self._ray.shutdown()


def own_host(config: Config) -> str:
    """The address of this machine that the rest of the cluster reaches it by; that of the loop-back device where there
    is no rest."""
    if config.cluster.kind != "ray" or not config.cluster.address:
        return LOCAL
    host: str = load_ray().util.get_node_ip_address()
    return host


def _for_servers(config: Config) -> float:
    """Cores for the servers that are started."""
    engine = config.engine
    return float(engine.replicas * engine.threads) if engine.kind == "sglang" and not engine.urls else 0.0


def check_address(address: str) -> None:
    """Raises `ConfigError` at once where nothing listens: Ray itself would ask for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        with socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS):
            pass
    except OSError as e:
        raise _not_joined(address, e) from None


def _not_joined(address: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"cluster.address = {address!r}: no Ray cluster can be joined there ({_line(error)}); `ray status` tells what "
        "runs here, `ray start --head` starts one, and an empty address starts one for this run"
    )


def load_ray() -> Any:
    try:
        import ray
    except ImportError:
        raise ConfigError("cluster.kind = 'ray' needs Ray: pip install 'agentgym-train[cluster]'") from None
    return ray


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
