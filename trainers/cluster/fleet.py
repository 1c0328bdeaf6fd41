"""The engine replicas of a run as Ray actors: started where there is room, watched over, updated, told apart.

A thread of the driver looks after them, so that a replica that dies while the learner learns is not missing until it
has learned. What a dead server needs its own actor does; what a dead actor needs is done here.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agentgym.engines.sglang.host import Place
from agentgym.engines.sglang.labels import new_mark
from agentgym.engines.sglang.layout import read_layout
from agentgym.engines.sglang.process import START_SECONDS
from agentgym.errors import ConfigError, EngineFault, RunError, UserError
from agentgym.rollout.worker import WorkerSpec
from agentgym.trainers.cluster.baggage import pack_model
from agentgym.trainers.cluster.hosted import Links
from agentgym.trainers.cluster.ray_cluster import RayCluster, load_ray
from agentgym.trainers.cluster.replica import ReplicaActor, Sign
from agentgym.trainers.cluster.replica_needs import hire
from agentgym.trainers.cluster.server_logs import ServerLogs
from agentgym.trainers.stall import NOBODY, StallWatch
from agentgym.weights import WeightUpdate

LOOK_SECONDS = 0.3
ATTEMPTS = 5
"""Starts of a replica, one after the other, that may fail before it is given up."""
UPDATE_SECONDS = 1800.0
CLOSE_SECONDS = 15.0

Note = Callable[[str], None]
Steer = Callable[[Collection[int]], None]
"""Tells whoever sends requests which replicas to go round."""


@dataclass(slots=True, eq=False)
class _Member:
    index: int
    actor: Any
    starting: Any = None
    given: Any = None
    """What weights it is started with."""
    asked: Any = None
    """For a sign."""
    place: Place | None = None
    """None where it does not serve."""
    again_at: float = 0.0
    """When it is to be started, where it is not being started (`monotonic`)."""
    failures: int = 0
    """Starts that failed, one after the other."""
    reason: str = ""
    deaths: Counter[str] = field(default_factory=Counter)
    """Of this actor's server, as it counts them."""
    met: bool = False
    """Whether it has ever served."""


class Fleet:
    """Starts `engine.replicas` servers (or takes those of `engine.urls`) when made; `ready` waits for them.

    logs: folder for the servers' output; stalls: is told where all replicas are waited for. Raises `ConfigError` where
    the cluster has no room.
    """

    def __init__(
        self,
        cluster: RayCluster,
        spec: WorkerSpec,
        logs: Path,
        note: Note = lambda text: None,
        stalls: StallWatch = NOBODY,
    ):
        self._ray = load_ray()
        self._config, self._patience = spec.config, spec.config.cluster.patience
        self._logs, self._note, self._stalls = ServerLogs(self._ray, logs), note, stalls
        self._lock = threading.RLock()
        self._latest: tuple[WeightUpdate | None, list[Any]] = (None, [])
        self._failure: Exception | None = None
        self._lost: Counter[str] = Counter()
        """Deaths by kind, of actors that are no more and of those that are."""
        self._silent_since = time.monotonic()
        self._resting = False
        """Whether the GPU is another's for now."""
        self._closed = threading.Event()
        mark = new_mark()
        self._members = self._hire(cluster, spec, mark)
        self.links = Links([member.actor for member in self._members], read_layout(spec.model_path), mark)
        for member in self._members:
            self._start(member)
        self._thread = threading.Thread(target=self._watch, daemon=True, name="replica-watch")
        self._thread.start()

    def _hire(self, cluster: RayCluster, spec: WorkerSpec, mark: str) -> list[_Member]:
        self._baggage = self._ray.put(pack_model(spec))  # held: an actor that is made again unpacks it again
        hired = hire(self._ray.remote(ReplicaActor), spec.config, cluster)
        return [_Member(i, each.remote(i, mark)) for i, each in enumerate(hired)]

    # ---- what the run asks of it ----

    def ready(self) -> None:
        """Wait until every replica has served once; raises why one cannot."""
        while not all(member.met for member in self._members):
            self.check()
            self._wait_for_a_replica(0.05)
        self._stalls.over()

    def check(self) -> None:
        """Raises what the run cannot go on with."""
        if self._failure is not None:
            raise self._failure

    @property
    def serving(self) -> list[int]:
        return [member.index for member in self._members if member.place]

    @property
    def places(self) -> list[Place | None]:
        """Where the servers are; None for one that is away."""
        return [member.place for member in self._members]

    def stats(self) -> dict[str, float]:
        """How many serve, and how often one was away: in all, and by what was lost."""
        with self._lock:
            total = sum((member.deaths for member in self._members), Counter(self._lost))
            kinds = {f"engine/deaths_{kind}": float(count) for kind, count in total.items()}
            return {"engine/serving": float(len(self.serving)), "engine/deaths": float(total.total()), **kinds}

    def update(self, update: WeightUpdate, steer: Steer = lambda indices: None) -> None:
        """Every serving replica runs it, proven, when this returns; others get it before they serve. `steer` hears
        which of them to go round meanwhile. Raises `RunError` for one that does not run what it was sent."""
        serving = self._remember(update)
        while True:
            self.check()
            if self._config.engine.update == "rolling":
                taken = [self._update([member], steer) for member in serving]
            else:
                taken = [self._update(serving, steer)] if serving else []
            steer(())
            if any(taken):
                self._stalls.over()
                break
            self._wait_for_a_replica(LOOK_SECONDS)  # none is left: the first that is back has it
            serving = [member for member in self._members if member.place]

    def release_memory(self) -> None:
        """Give the GPUs back until `resume_memory`; what dies meanwhile is started after it. Nothing may be played.
        Raises `RunError` where one may still hold its memory."""
        with self._lock:
            self._resting = True
        self._have_all("release_memory")

    def resume_memory(self) -> None:
        """Take them again; an update of the weights has to follow."""
        with self._lock:
            self._resting = False
            self._silent_since = time.monotonic()
        self._have_all("resume_memory")

    def _have_all(self, name: str) -> None:
        from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

        asked = [(member, getattr(member.actor, name).remote()) for member in self._members]
        for member, answer in asked:
            try:
                self._ray.get(answer, timeout=UPDATE_SECONDS)
            except RayActorError:
                continue  # its server is gone with it; the watch sees to it
            except (RayTaskError, GetTimeoutError) as e:
                why = getattr(e, "cause", None) or f"no answer within {UPDATE_SECONDS:g} s"
                raise RunError(f"engine replica {member.index}: {name}: {why}") from None

    def close(self) -> None:
        """End every server; nothing is left behind."""
        self._closed.set()
        self._thread.join()
        self._logs.ask_for_the_last({member.index: member.actor for member in self._members})
        with contextlib.suppress(Exception):  # what does not end by itself is ended
            closing = [member.actor.close.remote() for member in self._members]
            self._ray.wait(closing, num_returns=len(closing), timeout=CLOSE_SECONDS)
        self._logs.take_the_last()
        for member in self._members:
            with contextlib.suppress(Exception):
                self._ray.kill(member.actor, no_restart=True)

    # ---- weights ----

    def _remember(self, update: WeightUpdate) -> list[_Member]:
        """For those that are away now, and those that will be; the others."""
        from agentgym.trainers.cluster.tensors import encode

        tensors = [] if update.tensors is None else [self._ray.put(encode(update.tensors))]
        with self._lock:
            self._latest = replace(update, tensors=None), tensors
            for member in self._members:
                if not member.place and member.starting is None:  # its actor is there: it brings its server back
                    member.actor.update.remote(*self._latest)
            return [member for member in self._members if member.place]

    def _update(self, members: Sequence[_Member], steer: Steer) -> bool:
        """At once; whether one of them has it."""
        from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

        steer([member.index for member in members] if len(members) < len(self._members) else ())
        asked = [member.actor.update.remote(*self._latest) for member in members]
        taken = False
        for answer in asked:
            try:
                taken |= bool(self._ray.get(answer, timeout=UPDATE_SECONDS))
            except RayActorError:
                continue  # the watch sees to it
            except (RayTaskError, GetTimeoutError) as e:
                version = self._latest[0].version if self._latest[0] else 0
                why = getattr(e, "cause", None) or f"no answer within {UPDATE_SECONDS:g} s"
                raise RunError(f"version {version} of the weights did not arrive: {why}") from None
        return taken

    # ---- replicas come and go ----

    def _watch(self) -> None:
        while not self._wait(LOOK_SECONDS):
            try:
                for member in self._members:
                    self._look(member)
                self._see_whether_any_is_left()
            except Exception as e:
                if not self._closed.is_set():
                    self._failure = RunError(f"the engine replicas can no longer be watched: {type(e).__name__}: {e}")
                return

    def _wait(self, seconds: float) -> bool:
        return self._closed.wait(seconds)

    def _wait_for_a_replica(self, seconds: float) -> None:
        told = "; ".join(f"{member.index}: {member.reason}" for member in self._members if member.reason)
        self._stalls.waiting(f"an engine replica to serve{f' ({told})' if told else ''}", lambda: None)
        self._wait(seconds)

    def _start(self, member: _Member) -> None:
        with self._lock:
            member.place, member.asked = None, None
            if self._resting:  # later: its server would take memory that is another's now
                member.starting, member.again_at = None, time.monotonic() + LOOK_SECONDS
                return
            member.given = self._latest
            member.starting = member.actor.start.remote(self._baggage, *self._latest)

    def _forget_actor(self, member: _Member) -> None:
        """It will be made again: its log and its counts begin anew."""
        with self._lock:
            self._lost += member.deaths
            member.deaths = Counter()
            self._logs.begin(member.index)

    def _look(self, member: _Member) -> None:
        if member.again_at and time.monotonic() > member.again_at:
            member.again_at = 0.0
            self._start(member)
        if member.starting is not None:
            self._see_start(member)
        if member.asked is None:
            member.asked = member.actor.sign.remote(self._logs.at(member.index))
        elif _arrived(self._ray, member.asked):
            self._see_sign(member)

    def _see_start(self, member: _Member) -> None:
        from ray.exceptions import RayActorError, RayTaskError

        if not _arrived(self._ray, member.starting):
            return
        try:
            where, place = self._ray.get(member.starting)
        except RayTaskError as e:
            self._failed(member, e.cause if isinstance(e.cause, EngineFault | UserError) else e)
            return
        except RayActorError as e:
            self._forget_actor(member)
            self._failed(member, e)
            return
        if self._serves(member, place):
            self._note(f"engine replica {member.index} is on {where}, {place.url}")

    def _serves(self, member: _Member, place: Place) -> bool:
        """Unless others got newer weights meanwhile: then it has to get them first."""
        with self._lock:
            if member.given is not self._latest:
                self._start(member)
                return False
            member.asked = None  # what it told before is no longer so
            member.starting, member.failures, member.met, member.reason = None, 0, True, ""
            member.place = place
            return True

    def _failed(self, member: _Member, error: Exception) -> None:
        """A start that came to nothing; another is made a little later."""
        from ray.exceptions import ActorUnavailableError, RayTaskError

        member.starting, member.reason = None, str(error)
        # the actor is being made again, which may have to wait for a machine: that is no failure to start
        member.failures += not isinstance(error, ActorUnavailableError)
        if isinstance(error, UserError):
            self._failure = error
        elif isinstance(error, RayTaskError):
            self._failure = RunError(f"engine replica {member.index} could not be made:\n{error}")
        elif isinstance(error, EngineFault) and not member.met:
            self._failure = ConfigError(f"engine.kind = 'sglang': {error}")
        if self._failure is None and member.failures < ATTEMPTS:
            member.again_at = time.monotonic() + 2**member.failures
        else:
            self._note(f"engine replica {member.index} is given up, it could not be started: {member.reason}")

    def _see_sign(self, member: _Member) -> None:
        from ray.exceptions import RayError

        asked, member.asked = member.asked, None
        try:
            sign: Sign = self._ray.get(asked)
        except RayError:
            if member.met and member.starting is None and not member.again_at and member.failures < ATTEMPTS:
                self._note(f"engine replica {member.index} is lost with its process or machine; it is made again")
                self._lost["lost"] += 1
                self._forget_actor(member)
                self._start(member)
            return
        self._logs.write(member.index, sign.log)
        if member.starting is not None:
            return
        died = Counter(sign.deaths)
        if died != member.deaths or _life(sign.place) != _life(member.place):
            self._turned(member, sign, died)

    def _turned(self, member: _Member, sign: Sign, died: Counter[str]) -> None:
        """Its server died, or is back."""
        for kind in died - member.deaths:
            self._note(f"engine replica {member.index}: its server {WORDS.get(kind, kind)}; it is started anew")
        if sign.place and _life(sign.place) != _life(member.place):
            self._note(f"engine replica {member.index} serves again, version {sign.version}")
        with self._lock:
            member.deaths, member.place, member.reason = died, sign.place, sign.reason

    def _see_whether_any_is_left(self) -> None:
        """Where none serves and none can be started, the run has to end."""
        if self.serving or self._resting:
            self._silent_since = time.monotonic()
        silent = time.monotonic() - self._silent_since
        if any(member.failures < ATTEMPTS for member in self._members) and silent < START_SECONDS + self._patience:
            return
        told = "; ".join(member.reason for member in self._members if member.reason)
        self._failure = self._failure or RunError(
            f"none of {len(self._members)} engine replicas has served for {silent:.0f} s, and none can be started: "
            f"{told}; when that is mended, go on with --resume"
        )


WORDS = {"died": "died", "silent": "took requests and gave no answer"}


def _life(place: Place | None) -> str:
    return place.life if place else ""


def _arrived(ray: Any, ref: Any) -> bool:
    done, _ = ray.wait([ref], timeout=0)
    return bool(done)
