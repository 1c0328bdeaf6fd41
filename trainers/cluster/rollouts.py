"""Rollouts by Ray actors on any number of machines: requests go out, groups come back, no worker's death loses one."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from agentgym.engines.sglang.make import server_logs
from agentgym.errors import RunError, UserError
from agentgym.rollout.situation import Situation, joined
from agentgym.rollout.worker import WorkerFailed, WorkerSpec
from agentgym.trainers.cluster.actor import RolloutActor
from agentgym.trainers.cluster.baggage import pack
from agentgym.trainers.cluster.counters import ANSWER_SECONDS, Counters
from agentgym.trainers.cluster.fleet import Fleet
from agentgym.trainers.cluster.ray_cluster import RayCluster, load_ray
from agentgym.trainers.rollouts import CLOSING, LOOK_SECONDS, WAITED_FOR, RolloutError, Stats
from agentgym.trainers.stall import NOBODY, SILENCE, StallWatch
from agentgym.types import Group, GroupRequest
from agentgym.weights import WeightUpdate

ATTEMPTS = 5
"""Workers that a request may take down before the run is ended: it may be what kills them."""
FETCH_SECONDS = 120.0
"""That an answer which is there may take on its way."""
UNAVAILABLE_SECONDS = 0.2


@dataclass(slots=True, eq=False)
class _Member:
    actor: Any
    load: int = 0
    """Groups that it plays."""
    ready: bool = False
    starting: Any = None
    given: int = 0
    """Version that it starts with."""
    deaths: int = 0
    """While it was being built, one after the other."""
    heard: float = 0.0
    """When it last said anything (`monotonic`)."""
    where: str = ""
    """Its machine and process."""


class RayRollouts:
    """Implements `trainers.rollouts.Rollouts`.

    A worker that dies is made again by Ray; it gets the current weights before it serves, and what it played is played
    by others. With SGLang the engines are a fleet of servers, and the weights theirs.
    """

    def __init__(self, spec: WorkerSpec, note: Callable[[str], None] = lambda text: None, watch: StallWatch = NOBODY):
        self._ray = load_ray()
        self._note = note
        self._watch = watch
        self._cluster = RayCluster(spec.config)
        self._done: deque[Group] = deque()
        self._playing: dict[Any, tuple[GroupRequest, _Member]] = {}
        self._waiting: deque[GroupRequest] = deque()
        self._tries: dict[str, int] = {}
        self._weights: tuple[int, Any] = (spec.version, None)
        self._patience = spec.config.cluster.patience
        self._members: list[_Member] = []
        self._counters = Counters(self._ray)
        self._fleet: Fleet | None = None
        try:
            if spec.config.engine.kind == "sglang":
                self._fleet = Fleet(self._cluster, spec, server_logs(spec.config), note, watch)
            self._hire(spec)
        except BaseException:
            self.close()
            raise

    @property
    def fleet(self) -> Fleet | None:
        """The engine replicas, where the workers have no engines of their own."""
        return self._fleet

    def _hire(self, spec: WorkerSpec) -> None:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        rollout = spec.config.rollout
        room = self._cluster.room([_needs(rollout)] * rollout.workers)
        self._links = self._fleet.links if self._fleet is not None else None
        # held: a worker that is made again unpacks it again
        self._baggage = self._ray.put(pack(spec, weights=self._links is None))
        for i in range(rollout.workers):
            actor = self._ray.remote(RolloutActor).options(
                num_cpus=rollout.cpus_each,
                num_gpus=rollout.gpus_each,
                max_restarts=-1,
                max_concurrency=10_000,
                scheduling_strategy=PlacementGroupSchedulingStrategy(room, placement_group_bundle_index=i),
            )
            member = _Member(actor.remote())
            self._members.append(member)
            self._start(member)

    def ready(self) -> None:
        """Wait for all workers; raises what one of them could not load."""
        while starting := [member for member in self._members if member.starting is not None]:
            self._ray.wait([member.starting for member in starting], num_returns=1, timeout=LOOK_SECONDS)
            for member in starting:
                self._started(member)
            if any(member.starting is not None for member in starting):
                self._watch.waiting(WAITED_FOR["ready"], self._situation)
        self._watch.over()
        if self._fleet is not None:
            self._fleet.ready()

    def submit(self, requests: Sequence[GroupRequest]) -> None:
        self._waiting += requests
        self._assign()

    def receive(self) -> Group:
        since = time.monotonic()
        while not self._done:
            self._look(1.0)
            # at first they have their places, and load: that may take as long as it takes
            if any(member.ready for member in self._members) or not any(member.where for member in self._members):
                since = time.monotonic()
            elif time.monotonic() - since > self._patience:
                raise RunError(
                    f"no rollout worker has been alive for {self._patience:g} s (cluster.patience): "
                    "when the cluster has room again, go on with --resume"
                )
            if not self._done:
                self._watch.waiting("a group", self._situation)
        self._watch.over()
        return self._done.popleft()

    def _situation(self) -> Situation | None:
        """Of all workers that answer in time."""
        told, _ = self._ask_what_they_are_at([member for member in self._members if member.ready])
        return joined(told) if told else None

    def arrived(self) -> list[Group]:
        self._look(0.0)
        groups, self._done = list(self._done), deque()
        return groups

    def update(self, update: WeightUpdate) -> None:
        """Every living worker has them when this returns; others get them before they serve."""
        if self._fleet is not None:
            self._fleet.update(update, self._steer)
            self._weights = update.version, None
            self._look(0.0)
            return
        from agentgym.trainers.cluster.tensors import encode

        assert update.tensors is not None
        self._weights = update.version, self._ray.put(encode(update.tensors))
        self._look(0.0)
        asked = {m.actor.update.remote(*self._weights): m for m in self._members if m.ready}
        while asked:
            answered, _ = self._ray.wait(list(asked), num_returns=1, timeout=LOOK_SECONDS)
            for answer in answered:
                self._call(asked.pop(answer), answer)
            if asked and not answered:
                self._watch.waiting(WAITED_FOR["weights"], self._situation)
                self._hear()
            asked = {answer: m for answer, m in asked.items() if m.ready}  # who is lost gets them when it is back
        self._watch.over()
        self._assign()

    def release_memory(self) -> None:
        """The engines give their GPUs back until `resume_memory`. Raises `RunError` where something is played."""
        assert self._fleet is not None
        if self._playing or self._waiting:
            raise RunError(f"the engine's memory is wanted while {len(self._playing)} groups are being played")
        self._fleet.release_memory()

    def resume_memory(self) -> None:
        """An update has to follow."""
        assert self._fleet is not None
        self._fleet.resume_memory()

    def _steer(self, replicas: Collection[int]) -> None:
        """Nobody waits for it: a worker that hears it late only waits for a server."""
        for member in self._members:
            if member.ready:
                member.actor.avoid.remote(tuple(replicas))

    def stats(self) -> Stats:
        """Sums over the workers, of which one that does not answer counts as it last did; `peak_mem` is the largest of
        one."""
        self._counters.ask((member for member in self._members if member.ready), self._call)
        return {**self._counters.total(), **(self._fleet.stats() if self._fleet is not None else {})}

    def close(self) -> None:
        """Whatever fails, nothing is left behind: each part is ended, then the first failure is raised."""
        with contextlib.ExitStack() as parts:
            parts.callback(self._cluster.close)
            if self._fleet is not None:
                parts.callback(self._fleet.close)
                self._fleet = None
            self._end_workers()

    def _end_workers(self) -> None:
        """Those that serve are asked to end, all at once; in a short while they all are ended."""
        members, self._members = self._members, []
        try:
            asked = [member.actor.close.remote() for member in members if member.ready]
            ended, _ = self._ray.wait(asked, num_returns=len(asked), timeout=CLOSING) if asked else ([], [])
            if len(ended) < len(asked):
                self._note(
                    f"{len(asked) - len(ended)} rollout workers did not end within {CLOSING:g} s: they are killed"
                )
        except Exception as e:  # the cluster itself may be gone
            self._note(f"the rollout workers could not be told to end: {type(e).__name__}: {e}")
        for member in members:
            with contextlib.suppress(Exception):
                self._ray.kill(member.actor, no_restart=True)

    # ---- workers come and go ----

    def _start(self, member: _Member) -> None:
        member.ready, member.given = False, self._weights[0]
        member.starting = member.actor.start.remote(self._baggage, self._links, *self._weights)

    def _started(self, member: _Member) -> None:
        """See whether a worker that is being built is there. It is built again where its machine was lost meanwhile."""
        from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayTaskError

        try:
            where = self._ray.get(member.starting, timeout=0)
        except GetTimeoutError:
            return
        except RayTaskError as e:
            if isinstance(e.cause, UserError):
                raise e.cause from None
            raise RolloutError(f"a rollout worker could not be built:\n{e}") from None
        except ActorUnavailableError:  # it is being made again: that may have to wait for a machine
            time.sleep(UNAVAILABLE_SECONDS)
            self._start(member)
            return
        except RayActorError as e:
            member.deaths += 1
            if member.deaths >= ATTEMPTS:
                raise RunError(f"a rollout worker died {ATTEMPTS} times while it was being built: {e}") from None
            self._start(member)
            return
        if member.given != self._weights[0]:  # others got newer weights meanwhile
            self._start(member)
            return
        if where != member.where:  # a new process, which counts from nothing
            self._counters.begin(member)
            member.where = where
        member.starting, member.ready, member.deaths, member.heard = None, True, 0, time.monotonic()
        self._note(f"rollout worker {self._members.index(member)} is on {where}, version {member.given}")

    def _lost(self, member: _Member) -> None:
        """Its requests go back to the front of the queue."""
        if not member.ready:
            return
        self._note(f"rollout worker {self._members.index(member)} is gone; what it played is played by others")
        mine = [ref for ref, (_, by) in self._playing.items() if by is member]
        for ref in mine:
            request, _ = self._playing.pop(ref)
            self._again(request)
        member.load = 0
        self._counters.lost(member)
        self._start(member)

    def _again(self, request: GroupRequest) -> None:
        self._tries[request.id] = self._tries.get(request.id, 0) + 1
        if self._tries[request.id] >= ATTEMPTS:
            raise RunError(
                f"task {request.id} was being played when {ATTEMPTS} rollout workers died: its env or tools may kill "
                "them (was there enough memory?); go on with --resume once that is mended"
            )
        self._waiting.appendleft(request)

    def _call(self, member: _Member, answer: Any) -> Any:
        """The answer, which is there; None from a worker that is lost."""
        from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError, RayTaskError

        try:
            told = self._ray.get(answer, timeout=FETCH_SECONDS)
        except (RayActorError, ObjectLostError):
            self._lost(member)
        except GetTimeoutError:
            self._give_up(member, f"has not brought an answer here within {FETCH_SECONDS:g} s")
        except RayTaskError as e:
            if isinstance(e.cause, UserError):
                raise e.cause from None
            raise RolloutError(f"a rollout worker failed:\n{e}") from None
        else:
            member.heard = time.monotonic()
            return told
        return None

    # ---- workers that say nothing ----

    def _hear(self) -> None:
        """Give up workers of which nothing has been heard for long, not even what they do."""
        now = time.monotonic()
        quiet = [member for member in self._members if member.ready and now - member.heard > SILENCE]
        for member in self._ask_what_they_are_at(quiet)[1]:
            self._give_up(member, f"has given no sign of life for {SILENCE:g} s")

    def _ask_what_they_are_at(self, members: Sequence[_Member]) -> tuple[list[Situation], list[_Member]]:
        """What those say that answer in time, and who does not."""
        asked = {member.actor.situation.remote(): member for member in members}
        if not asked:
            return [], []
        answered, silent = self._ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS)
        told: list[Situation | None] = []
        for answer in answered:
            asked[answer].heard = time.monotonic()
            with contextlib.suppress(self._ray.exceptions.RayError):  # it has died meanwhile
                told.append(self._ray.get(answer))
        return [each for each in told if each is not None], [asked[answer] for answer in silent]

    def _give_up(self, member: _Member, why: str) -> None:
        self._note(f"rollout worker {self._members.index(member)} {why}: it is killed and made again")
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(member.actor, no_restart=False)
        self._lost(member)

    # ---- work goes out and comes back ----

    def _assign(self) -> None:
        free = [member for member in self._members if member.ready]
        while self._waiting and free:
            request = self._waiting.popleft()
            member = min(free, key=lambda member: member.load)
            member.load += 1
            self._playing[member.actor.play.remote(request)] = (request, member)

    def _look(self, seconds: float) -> None:
        """Take in what has happened, after at most so long."""
        if self._fleet is not None:
            self._fleet.check()
        starting = [member.starting for member in self._members if member.starting is not None]
        refs = [*self._playing, *starting]
        if not refs:
            time.sleep(seconds)
            return
        happened, _ = self._ray.wait(refs, num_returns=1, timeout=seconds)
        if happened:
            happened, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
        for ref in happened:
            if ref in self._playing:
                self._take(ref)
        for member in self._members:
            if member.starting is not None:
                self._started(member)
        self._hear()
        self._assign()

    def _take(self, ref: Any) -> None:
        request, member = self._playing[ref]
        group = self._call(member, ref)
        if group is None:
            return
        del self._playing[ref]
        member.load -= 1
        self._tries.pop(request.id, None)
        if isinstance(group, WorkerFailed):
            raise RolloutError(f"the rollout worker failed:\n{group.traceback}")
        self._done.append(group)


def _needs(rollout: Any) -> dict[str, float]:
    needs = {"CPU": float(rollout.cpus_each)}
    return {**needs, "GPU": float(rollout.gpus_each)} if rollout.gpus_each else needs
