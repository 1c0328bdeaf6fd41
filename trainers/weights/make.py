"""The weight sync that a config asks for."""

from __future__ import annotations

from pathlib import Path

from agentgym.config import Config
from agentgym.engines.mixture import mixture_of
from agentgym.errors import ConfigError
from agentgym.protocols import WeightSync
from agentgym.trainers.learner import Learner
from agentgym.trainers.weights.names import as_saved
from agentgym.trainers.weights.proof import LearnerProof
from agentgym.trainers.weights.shared import SharedMemorySync


def make_sync(config: Config, learner: Learner, model_path: str, folder: Path) -> WeightSync:
    """Of a learner's weights to the config's engine; `folder`: for what is written to disk.

    Raises `ConfigError` for a way that this machine does not have.
    """
    engine = config.engine
    if engine.kind != "sglang":
        return SharedMemorySync(learner.weights())
    prove = LearnerProof(learner)
    on_ray = config.cluster.kind == "ray"
    if engine.sync == "disk" and on_ray and not engine.urls:
        from agentgym.trainers.weights.handed import HandedSync

        return HandedSync(prove, as_saved(learner.model))
    if engine.sync == "disk":
        from agentgym.trainers.weights.disk import DiskSync

        return DiskSync(folder.resolve(), model_path, prove, as_saved(learner.model))
    if mixture_of(learner.model.config.to_dict()) is not None:
        raise ConfigError(
            f"engine.sync = {engine.sync!r}: {type(learner.model).__name__} has experts, and servers know theirs by "
            "other names than the learner: use disk, which renames them"
        )
    bucket = engine.bucket_mib << 20
    if engine.sync == "distributed":
        from agentgym.trainers.weights.distributed import DistributedSync

        return DistributedSync(host=_own_host(config), bucket_bytes=bucket, prove=prove)
    if learner.device.type != "cuda":
        raise ConfigError(
            "engine.sync = 'tensor' hands over a GPU's memory, and the learner is on the CPU (tensors shared between "
            "CPU processes kill the server): use disk or distributed"
        )
    from agentgym.trainers.weights.tensor import TensorSync

    return TensorSync(bucket_bytes=bucket, prove=prove)


def _own_host(config: Config) -> str:
    """Where servers reach the learner."""
    from agentgym.trainers.cluster.ray_cluster import own_host

    return own_host(config)
