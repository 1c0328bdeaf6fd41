"""The other ranks of the learner as Ray actors, of which the driver is rank 0.

Orders and answers pass through Ray: of a step, one message to each rank with its share of the packed rows, and one
back with sums. Weights and gradients go from rank to rank by torch.distributed, also when the run begins; what ranks
write of a checkpoint comes to rank 0's disk in pieces. So no file system is shared, and no machine has to hold all
shards at once.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from agentgym.config import Config
from agentgym.errors import ConfigError, UserError
from agentgym.loading import module_name
from agentgym.trainers.cluster.baggage import pack_file
from agentgym.trainers.cluster.rank_actor import SAVED, Luggage, RankActor, Whereabouts
from agentgym.trainers.cluster.ray_cluster import RayCluster, load_ray, own_host
from agentgym.trainers.ranks.followers import Answer, Order, RankError, RankLost, Serve, rank_device
from agentgym.trainers.ranks.network import talk_from
from agentgym.trainers.ranks.team import Rendezvous

START_SECONDS = 300.0
"""That an actor has to load what a learner needs."""
LAST_WORDS = 60.0
"""Within which Ray knows that a machine is lost."""
CLOSE_SECONDS = 5.0
PIECE_BYTES = 16 << 20
KEYS = "learner.ranks, learner.threads"

Note = Callable[[str], None]


class RayRanks:
    """Implements `ranks.followers.Starter`: room is reserved when it is made, and given back by `close`.

    device: of each rank, `cpu` or `cuda`. Raises `ConfigError` where the cluster has no room.
    """

    apart, last_words = True, LAST_WORDS

    def __init__(self, config: Config, device: str, note: Note = lambda text: None):
        address = config.cluster.address
        if address.startswith("ray://"):
            raise ConfigError(
                f"cluster.address = {address!r} with learner.ranks = {config.learner.ranks}: rank 0 is the process "
                "that was started, which has to be on a machine of the cluster; start it there, with "
                "--cluster.address=auto"
            )
        self._ray = load_ray()
        self._config, self._note = config, note
        self._seat: Any = None
        self._distant = bool(address)
        self._luggage = _luggage(config)
        self._cluster = RayCluster(config)
        try:
            on_gpus = device.startswith("cuda")
            here = self._gpus_here() if on_gpus else 0.0
            needs = rank_needs(config, device, self._cluster.gpus + (not here))
            self._gpu = self._sit(here) if here else 0
            # packed: nothing else of a run has so much to say to each other
            self._room = self._cluster.room([needs] * (config.learner.ranks - 1), "learner ranks", KEYS, "PACK")
            self.host = own_host(config)
            if self._distant:
                talk_from(self.host)
        except BaseException:
            self.close()
            raise

    def seat(self, device: str) -> torch.device:
        return rank_device(device, self._gpu)

    def start(self, serve: Serve, rank: int, rendezvous: Rendezvous) -> ActorFollower:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        needs = self._room.bundle_specs[rank - 1]
        actor = (
            self._ray.remote(RankActor)
            .options(
                num_cpus=needs["CPU"],
                num_gpus=needs.get("GPU", 0),
                max_restarts=0,
                scheduling_strategy=PlacementGroupSchedulingStrategy(self._room, placement_group_bundle_index=rank - 1),
            )
            .remote()
        )
        arriving = actor.arrive.remote(self._luggage, self._distant)
        joining = actor.join.remote(pickle.dumps(serve), rank, rendezvous)
        return ActorFollower(actor, rank, arriving, joining, self._note, self._config.run.dir)

    def close(self) -> None:
        if self._seat is not None:
            self._ray.kill(self._seat, no_restart=True)
            self._seat = None
        self._cluster.close()

    def _gpus_here(self) -> float:
        """That Ray has of this machine to give, taken or not."""
        here = self._ray.get_runtime_context().get_node_id()
        return sum(float(node["Resources"].get("GPU", 0)) for node in self._ray.nodes() if node["NodeID"] == here)

    def _sit(self, there: float) -> int:
        """Keep one of this machine's GPUs for rank 0, the driver, which Ray would else give to another: its number."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = self._ray.get_runtime_context().get_node_id()
        strategy = NodeAffinitySchedulingStrategy(here, soft=False)
        options = {"num_cpus": 0, "num_gpus": 1, "scheduling_strategy": strategy}
        self._seat = self._ray.remote(Seat).options(**options).remote()
        patience = self._config.cluster.patience
        try:
            (gpu,) = self._ray.get(self._seat.gpus.remote(), timeout=patience)
        except self._ray.exceptions.GetTimeoutError:
            raise ConfigError(
                f"there is no GPU for rank 0 of the learner: all {there:g} of this machine have been in use "
                f"for {patience:g} s (cluster.patience)"
            ) from None
        return number_here(str(gpu))


class Seat:
    """An actor that only holds a GPU."""

    def gpus(self) -> list[Any]:
        found: list[Any] = load_ray().get_gpu_ids()
        return found


class ActorFollower:
    """Implements `ranks.followers.Follower`: a rank in an actor. `run`: the folder that a lost one is gone on with."""

    def __init__(self, actor: Any, rank: int, arriving: Any, joining: Any, note: Note, run: str):
        self._ray = load_ray()
        self._actor, self._rank, self._note, self._run = actor, rank, note, run
        self._arriving, self._joining = arriving, joining
        self._asked: deque[Any] = deque([joining])
        self._where: Whereabouts | None = None

    def arrive(self) -> None:
        from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

        try:
            self._where = self._ray.get(self._arriving, timeout=START_SECONDS)
        except GetTimeoutError:
            raise RankError(f"rank {self._rank} of the learner was not there within {START_SECONDS:g} s") from None
        except RayTaskError as e:
            if isinstance(e.cause, UserError):
                raise e.cause from None
            raise RankError(f"rank {self._rank} of the learner could not be made:\n{e}") from None
        except RayActorError:
            raise self._lost() from None
        self._note(f"learner rank {self._rank} is on {self._where.name}")

    def send(self, order: Order) -> None:
        self._asked.append(self._actor.obey.remote(pickle.dumps(order)))

    def receive(self, patience: float) -> Answer | None:
        if not self._asked:
            time.sleep(patience)
            return None
        asked = self._asked[0]
        arrived, _ = self._ray.wait([asked], timeout=patience)
        if not arrived:
            return None
        answer: Answer = pickle.loads(self._get(asked))
        self._asked.popleft()
        if asked is self._joining and answer.error is None and not answer.traceback:
            return self.receive(patience)  # that it has joined is no answer to an order
        return answer

    def place(self, folder: Path) -> Path:
        return SAVED

    def bring(self, folder: Path) -> None:
        sizes: dict[str, int] = self._get(self._actor.saved.remote())
        for name, size in sizes.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                for at in range(0, size, PIECE_BYTES):
                    file.write(self._get(self._actor.piece.remote(name, at, PIECE_BYTES)))
        self._get(self._actor.forget.remote())

    def close(self) -> None:
        with contextlib.suppress(Exception):  # it may be gone, or wait for another
            self._ray.wait([self._actor.close.remote()], timeout=CLOSE_SECONDS if not self._asked else 0)
        with contextlib.suppress(Exception):
            self._ray.kill(self._actor, no_restart=True)

    def _get(self, ref: Any) -> Any:
        from ray.exceptions import RayActorError, RayTaskError

        try:
            return self._ray.get(ref)
        except RayActorError:
            raise self._lost() from None
        except RayTaskError as e:
            raise RankError(f"rank {self._rank} of the learner failed:\n{e}") from None

    def _lost(self) -> RankLost:
        where = f", on {self._where.name}," if self._where else ""
        with contextlib.suppress(Exception):
            self._ray.kill(self._actor, no_restart=True)  # one that is only cut off is not to go on either
        again = f"--resume {self._run}" if self._run else "--resume"
        return RankLost(
            f"rank {self._rank} of the learner{where} is gone: {self._how()}; it had its part of the weights, so that "
            f"the run ends here. Its checkpoints are whole: go on with {again} when the cluster has room again"
        )

    def _how(self) -> str:
        with contextlib.suppress(Exception):
            alive = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}
            if self._where and self._where.node not in alive:
                return "its machine is lost"
        return "its process died or was killed (was there enough memory?)"


def rank_needs(config: Config, device: str, gpus: float) -> dict[str, float]:
    """What Ray keeps for one rank. gpus: of the whole cluster, rank 0's included. Raises `ConfigError` for more than
    there are."""
    learner = config.learner
    needs = {"CPU": float(learner.threads)}
    if not device.startswith("cuda"):
        return needs
    if learner.ranks > gpus:
        raise ConfigError(
            f"learner.ranks = {learner.ranks} takes a GPU for each; there are {gpus:g}: lower it, or set "
            "learner.device=cpu"
        )
    return {**needs, "GPU": 1.0}


def number_here(gpu: str) -> int:
    """The number by which this process knows a GPU that Ray names. Raises `ConfigError` where it does not see it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return int(gpu)
    seen = visible.split(",")
    if gpu not in seen:
        raise ConfigError(
            f"CUDA_VISIBLE_DEVICES = {visible}: Ray gave GPU {gpu} of this machine to rank 0 of the learner, which "
            "does not see it; start Ray and the run with the same CUDA_VISIBLE_DEVICES"
        )
    return seen.index(gpu)


def _luggage(config: Config) -> Luggage:
    """The user's loss, where it is a file."""
    loss = config.trainer.loss
    packed = pack_file(loss, "loss")
    if packed is None:
        return Luggage()
    reference, files = packed
    return Luggage(files, {reference: module_name(loss.rpartition(":")[0])})
