"""An env for a cluster, and what plays it there."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from agentgym.config import Config
from agentgym.rollout.worker import WorkerSpec
from agentgym.trainers.cluster.rollouts import RayRollouts
from agentgym.types import Group, GroupRequest

ENVS = """
import agentgym as ag

@ag.register("Say-v0", tools=[], tasks=[ag.Task(f"t{i}", f"Say {i}.", i) for i in range(40)], holdout=0)
async def say(task, answer, episode):
    return float(episode.rng.integers(2))
"""


class Play:
    """Rollouts on a fleet, what they said, and groups to ask of them."""

    def __init__(self, config: Config, home: Path):
        self.notes: list[str] = []
        self.config, self.asked = config, 0
        self.rollouts = RayRollouts(WorkerSpec(config, str(home / "model")), self.notes.append)

    @property
    def fleet(self) -> Any:
        return self.rollouts.fleet

    def submit(self, count: int) -> list[str]:
        names = [f"{self.asked + i}:t{i % 40}" for i in range(count)]
        self.asked += count
        self.rollouts.submit([GroupRequest(n, self.config.env.id, i % 40, 2, seed=0) for i, n in enumerate(names)])
        return names

    def groups(self, count: int) -> list[Group]:
        names = self.submit(count)
        return self.received(names)

    def received(self, names: list[str]) -> list[Group]:
        groups = [self.rollouts.receive() for _ in names]
        assert sorted(group.id for group in groups) == sorted(names), "none is lost, none comes twice"
        assert not [t.error for group in groups for t in group.trajectories if t.error]
        return groups

    def until(self, what: Callable[[], bool], seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, self.notes
            self.rollouts.arrived()
            time.sleep(0.05)

    def pid(self, index: int) -> int:
        place = self.fleet.places[index]
        assert place is not None
        return int(place.pid)

    def url(self, index: int) -> str:
        place = self.fleet.places[index]
        assert place is not None
        return str(place.url)

    def deaths(self) -> dict[str, float]:
        return {name[14:]: n for name, n in self.fleet.stats().items() if name.startswith("engine/deaths_")}


def versions(groups: list[Group]) -> set[int]:
    return {int(v) for g in groups for t in g.trajectories for turn in t.turns for v in turn.completion.versions}


def logprobs(groups: list[Group]) -> Any:
    return np.concatenate([turn.completion.logprobs for g in groups for t in g.trajectories for turn in t.turns])


def zeroed(model: Any) -> dict[str, Any]:
    return {name: parameter.detach() * 0 for name, parameter in model.named_parameters()}


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except OSError:
        return False
