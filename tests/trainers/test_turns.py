"""Engine and learner on one GPU: in turn, in the right order, and never both on it, whatever fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentgym.config import Config, load_config
from agentgym.errors import ConfigError, RunError
from agentgym.trainers.annotate import Annotator
from agentgym.trainers.learner import Learner, LearnerOptions
from agentgym.trainers.placement import check_placement, make_turns
from agentgym.trainers.turns import Alternating, Apart
from tests.trainers.rows import tiny


class GPU:
    """Whose memory is on it, what was done, and what is to fail: the n-th call of all, before or after it has acted."""

    def __init__(self, fails: int = -1, acts: bool = False):
        self.holders: set[str] = set()
        self.calls: list[str] = []
        self.fails, self.acts = fails, acts

    def do(self, name: str, act: Callable[[], None]) -> None:
        failing = len(self.calls) == self.fails
        self.calls.append(name)
        if not failing or self.acts:
            act()
        assert len(self.holders) < 2, f"both are on the GPU after {self.calls}"
        if failing:
            raise OSError(f"{name} failed")

    def take(self, who: str) -> Callable[[], None]:
        def act() -> None:
            assert who not in self.holders, f"{who} takes its memory twice: {self.calls}"
            self.holders.add(who)

        return act

    def give(self, who: str) -> Callable[[], None]:
        def act() -> None:
            assert who in self.holders, f"{who} gives back what it does not have: {self.calls}"
            self.holders.remove(who)

        return act

    def use(self, who: str) -> Callable[[], None]:
        def act() -> None:
            assert self.holders == {who}, f"{who} is used and {self.holders} on the GPU: {self.calls}"

        return act


class Engine:
    """Fails where it overlaps with the learner, or plays with weights that it has lost."""

    def __init__(self, gpu: GPU):
        self._gpu = gpu
        self._whole = True
        gpu.do("start", gpu.take("engine"))

    def release_memory(self) -> None:
        self._whole = False
        self._gpu.do("release", self._gpu.give("engine"))

    def resume_memory(self) -> None:
        self._gpu.do("resume", self._gpu.take("engine"))

    def sync(self) -> None:
        self._gpu.do("sync", self._gpu.use("engine"))
        self._whole = True

    def generate(self) -> None:
        assert self._whole, "its weights were given back, and none were brought"
        self._gpu.do("generate", self._gpu.use("engine"))


class Student:
    def __init__(self, gpu: GPU):
        self._gpu = gpu
        gpu.holders.add("learner")

    def offload(self) -> None:
        self._gpu.do("offload", self._gpu.give("learner"))

    def onload(self) -> None:
        self._gpu.do("onload", self._gpu.take("learner"))

    def step(self) -> None:
        self._gpu.do("step", self._gpu.use("learner"))


def all_of(things: Iterator[Callable[[], None]]) -> None:
    for thing in things:
        thing()


def run(gpu: GPU, steps: int = 2) -> tuple[Alternating, Iterator[Callable[[], None]]]:
    """What a run does, one thing after the other."""
    student = Student(gpu)
    turns = Alternating(student)
    engines: list[Engine] = []

    def start() -> Engine:
        engines.append(Engine(gpu))
        return engines[0]

    def things() -> Iterator[Callable[[], None]]:
        yield lambda: turns.begin(start)
        yield turns.learn  # the weights are handed over before the first episode, too
        yield lambda: turns.play(engines[0].sync)
        for _ in range(steps):
            yield engines[0].generate
            yield turns.learn
            yield turns.learn  # it goes on with its turn
            yield student.step
            yield lambda: turns.play(engines[0].sync)

    return turns, things()


def test_the_order_of_a_step() -> None:
    gpu = GPU()
    turns, things = run(gpu)
    all_of(things)
    step = ["generate", "release", "onload", "step", "offload", "resume", "sync"]
    assert gpu.calls == ["offload", "start", "release", "onload", "offload", "resume", "sync", *step, *step]
    assert turns.holder == "engine"


@pytest.mark.parametrize("acts", [False, True], ids=["at once", "when it has acted"])
@pytest.mark.parametrize("fails", range(21))
def test_whatever_fails_they_never_overlap(fails: int, acts: bool) -> None:
    """Each call of a run in turn: the failure is told, and whatever is tried afterwards, both are never on the GPU."""
    gpu = GPU(fails, acts)
    turns, things = run(gpu)
    with pytest.raises(OSError, match="failed"):
        all_of(things)
    failed, done = gpu.calls[-1], list(gpu.calls)
    resting = failed in ("generate", "step")  # these move nothing: whose turn it is stays known
    again: dict[str, Callable[[], None]] = {"learn": turns.learn, "play": lambda: turns.play(lambda: None)}
    for name in ("play", "learn", "learn", "play", "play", "learn"):
        if resting:
            again[name]()
        else:
            with pytest.raises(RunError, match=r"can no longer take turns .*failed"):
                again[name]()
    assert resting or gpu.calls == done, "nothing is moved any more"


def test_a_step_that_fails_leaves_the_engine_released() -> None:
    gpu = GPU(fails=10)
    turns, things = run(gpu)
    with pytest.raises(OSError, match="step failed"):
        all_of(things)
    assert gpu.holders == {"learner"}
    assert turns.holder == "learner"
    assert gpu.calls[-3:] == ["release", "onload", "step"]


def test_apart_nothing_is_moved() -> None:
    synced: list[int] = []
    turns = Apart()
    turns.begin(lambda: None)
    turns.learn()
    turns.play(lambda: synced.append(1))
    assert synced == [1]


COLOCATED = {
    "cluster.placement": "colocated",
    "cluster.kind": "ray",
    "engine.kind": "sglang",
    "rollout.max_staleness": 0,
}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"cluster.kind": "none"}, "set engine.kind=sglang and --cluster=ray"),
        ({"engine.kind": "local"}, "set engine.kind=sglang and --cluster=ray"),
        ({"engine.urls": ["http://h:1"]}, "leave out engine.urls"),
        ({"engine.device": "cpu"}, "a server on a CPU cannot give its memory back"),
        ({"learner.device": "cpu"}, "use split"),
        ({"learner.ranks": 2}, "set learner.ranks, engine.replicas and engine.gpus_each to 1"),
        ({"engine.replicas": 2}, "set learner.ranks, engine.replicas and engine.gpus_each to 1"),
        ({"rollout.max_staleness": 2}, "rollout.max_staleness = 2 asks to play while the learner learns.* set it to 0"),
        ({"engine.sync": "distributed"}, "engine.sync = 'distributed' .* set it to disk"),
    ],
)
def test_what_cannot_take_turns_is_refused(wrong: dict[str, Any], said: str) -> None:
    check_placement(load_config(None, COLOCATED))
    check_placement(load_config(None, {**COLOCATED, **wrong, "cluster.placement": "split"}))
    with pytest.raises(ConfigError, match=rf"cluster.placement = 'colocated': .*{said}"):
        check_placement(load_config(None, {**COLOCATED, **wrong}))


def test_a_learner_on_the_cpu_has_nothing_to_share() -> None:
    learner = Learner(tiny(), LearnerOptions())
    with pytest.raises(ConfigError, match="no GPU is visible"):
        make_turns(load_config(None, COLOCATED), learner, Annotator())
    assert type(make_turns(Config(), learner, Annotator())) is Apart
