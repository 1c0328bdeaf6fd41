"""Closing where a part fails or hangs: the others are closed all the same. No cluster is needed."""

from __future__ import annotations

from typing import Any

import pytest

from agentgym.trainers.cluster import rollouts as driving
from agentgym.trainers.cluster.rollouts import RayRollouts, _Member
from agentgym.trainers.session import Session


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
