"""The learner over several ranks: `RankedLearner` is rank 0 and what the run talks to; the others follow."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from agentgym.errors import UserError
from agentgym.loading import load_object
from agentgym.trainers.batch import Row
from agentgym.trainers.learner import Learner, LearnerOptions
from agentgym.trainers.lora import ADAPTER, adapters, save_adapters
from agentgym.trainers.policy import Build, Policy, prepare, skeleton
from agentgym.trainers.ranks.followers import (
    Follower,
    Followers,
    Order,
    Processes,
    Serve,
    Starter,
    compare,
    rank_device,
)
from agentgym.trainers.ranks.pieces import mine
from agentgym.trainers.ranks.sharding import copy_shards, fill, shard
from agentgym.trainers.ranks.team import Rendezvous, Team, join, keep_store
from agentgym.trainers.ranks.tensor_parallel import check_cut, clip, parts_of_gradient, settle
from agentgym.types import Floats


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What a rank has to know to become part of the learner; the weights come from rank 0."""

    kind: type
    config: Any
    options: LearnerOptions
    build: Build
    device: str
    threads: int = 1
    preload: tuple[str, ...] = ()
    """`path.py:name` of functions that orders may carry."""
    apart: bool = False
    """See `Starter.apart`."""

    def __call__(self, rank: int, rendezvous: Rendezvous) -> Any:
        """Become rank `rank`: returns what obeys orders."""
        torch.set_num_threads(self.threads)
        for reference in self.preload:
            load_object(reference)
        device = rank_device(self.device, 0 if self.apart else rank)
        team = join(rendezvous, rank, device)
        model = skeleton(self.kind, self.config, self.build)
        learner = ShardedLearner(model, self.options, device, self.build, team)
        return functools.partial(_obey, learner)


def _obey(learner: ShardedLearner, order: Order) -> Any:
    return getattr(learner, order.name)(*order.args)


@dataclass(slots=True)
class ShardedLearner(Learner):
    """One rank's part. `model` comes on the meta device; `source` is rank 0's own, whole."""

    source: Any = None
    summed: frozenset[str] = frozenset()
    """Weights of which each rank of tensor parallelism has a part of the gradient."""

    def _place(self) -> None:
        self.policy = self._sharded(self.model)
        fill(self.model, self.team, self.source)
        self.source = None

    def _sharded(self, model: Any, *, trained: bool = True) -> Policy:
        compute = None if self.build.dtype == "float32" else getattr(torch, self.build.dtype)
        policy = Policy(model, compute)
        self.summed = shard(policy, self.team, trained=trained)
        return policy

    def _settle(self) -> None:
        if self.team.tp > 1:
            settle(self.model.named_parameters(), self.summed, self.team)

    def _gradient(self) -> torch.Tensor:
        if self.team.tp == 1:
            return Learner._gradient(self)
        parts = parts_of_gradient(self.model.parameters(), self.team)
        return torch.cat([part.flatten() for part in parts])

    def _clip(self) -> float:
        if self.team.tp == 1:
            return Learner._clip(self)
        return clip(list(self.model.parameters()), self.options.grad_clip, self.team)

    def _hold(self) -> None:
        model = skeleton(type(self.model), self.model.config, self.build)
        self.reference = self._sharded(model, trained=False).eval().requires_grad_(False)
        copy_shards(self.model, model)

    def _score(
        self, micros: Sequence[Sequence[Row]], temperature: float, reference: bool, states: bool
    ) -> list[Floats]:
        found = Learner._score(self, micros, temperature, reference, states)
        # else done by the backward pass, which there is none of
        (self.reference if reference else self.policy).reshard()
        return found

    def _take(self, given: Mapping[str, torch.Tensor]) -> None:
        """Set weights by name, from whole ones that every rank has."""
        named: dict[str, Any] = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, whole in given.items():
                named[name].to_local().copy_(mine(whole, named[name]))

    def _gather(self, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
        return self.team.gather(dict(self.model.named_parameters()), dtype)

    def _identify(self) -> dict[str, Any]:
        """What has to be the same on all ranks."""
        import transformers

        import agentgym

        shapes = [(name, tuple(p.shape)) for name, p in self.model.named_parameters()]
        config = self.model.config.to_json_string()
        return {
            "agentgym": agentgym.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "the model": hashlib.sha256(f"{type(self.model).__name__}{config}{shapes}".encode()).hexdigest()[:16],
            "learner options": self.options,
            "how the model is run": self.build,
            "ranks": self.team.size,
            "tensor parallelism": self.team.tp,
        }


@dataclass(slots=True)
class RankedLearner(ShardedLearner):
    """Rank 0 of several, and the others' master. Made by `make_ranked`."""

    followers: Followers = field(kw_only=True)
    starter: Starter = field(kw_only=True)

    def weights(self) -> dict[str, torch.Tensor]:
        """As engines hold them: in `build.dtype`."""
        return self._whole(getattr(torch, self.build.dtype))

    def _whole(self, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
        lora = self.build.lora.rank  # merged as they are kept, then rounded
        found = self._named_like_the_engines(self._together("_gather", None if lora else dtype)[0])
        return {name: tensor.to(dtype) for name, tensor in found.items()} if lora and dtype else found

    def save_pretrained(self, folder: Path) -> None:
        kept = set(self.model.state_dict()) - {name for name, _ in self.model.named_parameters(remove_duplicate=False)}
        buffers = {name: tensor for name, tensor in self.model.named_buffers() if name in kept}
        gathered = self._together("_gather", None)[0]
        whole = {**buffers, **self._named_like_the_engines(gathered)}
        skeleton(type(self.model), self.model.config).save_pretrained(folder, state_dict=whole)
        if self.build.lora.rank:
            save_adapters(adapters(gathered.items()), self.build.lora, folder / ADAPTER)

    def save_state(self, folder: Path) -> None:
        self._together("_save_state", each=[folder, *self.followers.places(folder)])
        self.followers.bring(folder)

    @property
    def others_cpu_s(self) -> float:
        return self.followers.cpu_s

    def close(self) -> None:
        self.followers.close()
        self.team.leave()
        self.starter.close()

    def check(self) -> None:
        """Raises `RunError` where ranks are not what they should be."""
        mine, *theirs = self._together("_identify")
        compare(mine, theirs)

    def _together(self, name: str, *args: Any, each: Sequence[Any] | None = None) -> list[Any]:
        given = [args if each is None else (each[rank], *args) for rank in range(self.team.size)]
        self.followers.tell(name, given[1:])
        try:
            mine = getattr(self, name)(*given[0])
        except Exception as e:
            self.followers.blame(e)
            raise
        return [mine, *self.followers.answers()]


def make_ranked(
    model: Any,
    options: LearnerOptions,
    *,
    ranks: int,
    tensor_parallel: int = 1,
    device: str = "cpu",
    build: Build | None = None,
    threads: int = 1,
    timeout: float = 600.0,
    preload: tuple[str, ...] = (),
    starter: Starter | None = None,
) -> RankedLearner:
    """Shard `model`, which this process has whole, over `ranks` ranks, of which it is the first.

    Each `tensor_parallel` of them, by which `ranks` has to be divisible, share the matrices of every block.
    `starter` begins the others somewhere; without one they are processes of this machine.
    """
    starter = starter or Processes()
    members: list[Follower] = []
    followers = Followers(members, timeout, starter.last_words)
    try:
        seat = starter.seat(device)
        if tensor_parallel > 1:
            check_cut(model, build or Build(), ranks, tensor_parallel)
        decided = prepare(model, build or Build())
        serve: Serve = Blueprint(
            type(model), model.config, options, decided, device, threads, preload, apart=starter.apart
        )
        store = keep_store(ranks, starter.host, timeout)
        backend = "cpu:gloo,cuda:nccl" if seat.type == "cuda" else "gloo"
        rendezvous = Rendezvous(starter.host, store.port, ranks, backend, timeout, tensor_parallel)
        members += [starter.start(serve, rank, rendezvous) for rank in range(1, ranks)]
        for member in members:
            member.arrive()
        team = join(rendezvous, 0, seat, store)
        part = skeleton(type(model), model.config, decided)
        learner = RankedLearner(part, options, seat, decided, team, source=model, followers=followers, starter=starter)
        learner.check()
    except BaseException as e:
        try:
            if isinstance(e, Exception) and not isinstance(e, UserError):
                followers.blame(e)
        finally:
            followers.close()
            Team(size=ranks).leave()
            starter.close()
        raise
    return learner
