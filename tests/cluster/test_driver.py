"""The driver of a cluster whose workers and replicas hang: what is closed, and what is told. No cluster is needed."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

import pytest

from agentgym.config import Config
from agentgym.errors import RunError
from agentgym.trainers.cluster import rollouts as driving
from agentgym.trainers.cluster.counters import Counters
from agentgym.trainers.cluster.fleet import Fleet
from agentgym.trainers.cluster.fleet import _Member as Replica
from agentgym.trainers.cluster.rollouts import RayRollouts, _Member
from agentgym.trainers.session import Session
from agentgym.trainers.stall import StallWatch
from agentgym.weights import WeightUpdate


class Ray:
    """Answers that never come."""

    def __init__(self) -> None:
        self.killed: list[Any] = []

    def wait(self, refs: list[Any], *, num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        assert timeout <= 10
        return [], refs

    def kill(self, actor: Any, *, no_restart: bool) -> None:
        assert no_restart
        self.killed.append(actor)
        raise RuntimeError("it is gone already")


class Actor:
    """Hangs, or cannot even be asked."""

    def __init__(self, reachable: bool = True):
        self.reachable = reachable

    @property
    def close(self) -> Actor:
        return self

    def remote(self) -> object:
        if not self.reachable:
            raise ConnectionError("no cluster")
        return object()


class Part:
    def __init__(self, fails: str = ""):
        self.fails, self.closed = fails, 0

    def close(self) -> None:
        self.closed += 1
        if self.fails:
            raise RuntimeError(self.fails)


@pytest.mark.parametrize("reachable", [True, False])
def test_workers_that_hang_are_killed_and_the_rest_is_closed(reachable: bool) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'agentgym-train[cluster]'")
    rollouts, notes = RayRollouts.__new__(RayRollouts), []
    rollouts._note = notes.append
    rollouts._ray = ray = Ray()
    rollouts._members = [_Member(Actor(reachable), ready=True) for _ in range(3)]
    fleet, cluster = Part("the fleet is gone"), Part()
    rollouts._fleet, rollouts._cluster = fleet, cluster  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="the fleet is gone"):
        rollouts.close()
    assert (len(ray.killed), fleet.closed, cluster.closed) == (3, 1, 1)
    assert notes == [
        "3 rollout workers did not end within 10 s: they are killed"
        if reachable
        else "the rollout workers could not be told to end: ConnectionError: no cluster"
    ]
    assert driving.CLOSING == 10


def test_a_session_closes_every_part() -> None:
    session = Session.__new__(Session)
    session._rollouts, session._sync = Part("the cluster is gone"), Part("the disk is gone")  # type: ignore[assignment]
    session._learner, session.interrupt = Part(), Part()  # type: ignore[assignment]
    parts: list[Any] = [session._rollouts, session._sync, session._learner, session.interrupt]
    with pytest.raises(RuntimeError):
        session.close()
    assert [part.closed for part in parts] == [1, 1, 1, 1]


def test_a_worker_whose_start_hangs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    exceptions = pytest.importorskip("ray.exceptions", reason="Ray is not installed")
    monkeypatch.setattr(driving, "LOOK_SECONDS", 0.01)
    told: list[str] = []
    notes: list[str] = []

    class Slow(Ray):
        def wait(self, refs: list[Any], *, num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
            threading.Event().wait(timeout)
            return [], refs

        def get(self, ref: Any, *, timeout: float) -> str:
            assert timeout == 0
            if len(told) < 2:
                raise exceptions.GetTimeoutError
            return "here, process 7"

    rollouts = RayRollouts.__new__(RayRollouts)
    rollouts._ray, rollouts._note = Slow(), notes.append
    rollouts._watch = StallWatch(0.05, told.append)
    rollouts._members, rollouts._fleet = [_Member(Actor(), starting=object())], None
    rollouts._weights, rollouts._counters = (0, None), Counters(rollouts._ray)
    rollouts.ready()
    assert "s for the rollout worker to load its model; nothing is heard of it" in told[0]
    assert notes == ["rollout worker 0 is on here, process 7, version 0"]


def test_workers_that_load_for_long_at_first_end_no_run_and_those_that_are_lost_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rollouts = RayRollouts.__new__(RayRollouts)
    rollouts._watch, rollouts._done, rollouts._patience = StallWatch(0), deque(), 0.05
    rollouts._members = [member] = [_Member(Actor(), starting=object())]
    looks: list[float] = []

    def look(seconds: float) -> None:
        looks.append(time.monotonic())
        time.sleep(0.02)
        if len(looks) == 20:  # it was there once, and now it is not
            member.where = "here, process 7"

    monkeypatch.setattr(rollouts, "_look", look)
    with pytest.raises(RunError, match=r"alive for 0.05 s \(cluster.patience\)"):
        rollouts.receive()
    assert 20 < len(looks) < 40


def test_replicas_that_are_all_away_are_told_while_new_weights_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'agentgym-train[cluster]'")
    told: list[str] = []
    fleet = Fleet.__new__(Fleet)
    replica = Replica(0, Actor(), starting=object(), reason="it ran out of memory")
    fleet._members, fleet._config, fleet._failure = [replica], Config(), None
    fleet._lock, fleet._closed = threading.RLock(), threading.Event()
    fleet._stalls = StallWatch(0.05, told.append)

    def taken(members: list[Any], steer: Any) -> bool:
        return len(told) >= 2

    monkeypatch.setattr(fleet, "_update", taken)
    threading.Timer(0.3, lambda: setattr(replica, "place", "http://h:1")).start()
    fleet.update(WeightUpdate(3, path="x"))
    assert "s for an engine replica to serve (0: it ran out of memory)" in told[0]
