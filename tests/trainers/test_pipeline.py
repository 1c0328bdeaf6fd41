"""Dispatch is paced by the bound, every task is played once an epoch, and a resumed run goes on where it was."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence

import pytest

from agentgym.trainers.difficulty import Difficulty
from agentgym.trainers.frontier import Frontier, TaskSource
from agentgym.trainers.pipeline import Pipeline
from agentgym.types import Group, GroupRequest, Outcome, StopReason, Trajectory, WeightUpdate


class RecordedRollouts:
    """Finishes groups in the order they were asked for."""

    def __init__(self) -> None:
        self.requests: list[GroupRequest] = []
        self.waiting: deque[GroupRequest] = deque()

    def submit(self, requests: Sequence[GroupRequest]) -> None:
        self.requests += requests
        self.waiting += requests

    def receive(self) -> Group:
        request = self.waiting.popleft()
        return Group(request.id, str(request.task), request.env_id, (), request)

    def update(self, update: WeightUpdate) -> None: ...

    def stats(self) -> dict[str, float]:
        return {}

    def close(self) -> None: ...


def frontier(tasks: int = 10, seed: int = 0) -> Frontier:
    return Frontier([TaskSource("e", [f"t{i}" for i in range(tasks)])], size=4, seed=seed)


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_no_more_is_started_than_the_bound_allows(staleness: int) -> None:
    rollouts = RecordedRollouts()
    pipeline = Pipeline(rollouts, frontier(), groups=3, max_staleness=staleness, steps=6)
    for version in range(6):
        groups = pipeline.batch(version)
        assert len(groups) == 3
        assert len(rollouts.requests) == min(version + staleness + 1, 6) * 3
        pipeline.consumed(groups)
    assert len(rollouts.requests) == 18
    assert not pipeline.state()["in_flight"]


def test_each_epoch_plays_every_task_once_in_another_order() -> None:
    one = frontier()
    first, second = ([one.next() for _ in range(10)] for _ in range(2))
    assert {r.task for r in first} == {r.task for r in second} == set(range(10))
    assert [r.task for r in first] != [r.task for r in second]
    assert len({r.id for r in first + second}) == 20
    assert [r.id for r in first] == [frontier().next().id, *[r.id for r in first[1:]]]


def test_several_envs_are_mixed_by_weight() -> None:
    mixed = Frontier([TaskSource("a", ["x"] * 5, 3.0), TaskSource("b", ["y"] * 5, 1.0)], size=2, seed=0)
    envs = [mixed.next().env_id for _ in range(40)]
    assert (envs.count("a"), envs.count("b")) == (30, 10)
    assert set(envs[:4]) == {"a", "b"}


def solved(env_id: str, task: str, kind: str, *outcomes: Outcome) -> Group:
    played = tuple(
        Trajectory(f"{i}", task, env_id, (), (), None, {}, outcome, StopReason.completed, kind)
        for i, outcome in enumerate(outcomes)
    )
    return Group(f"0:{task}", task, env_id, played)


R, W, U = Outcome.correct, Outcome.incorrect, Outcome.unscored


def test_success_is_the_tasks_own_else_its_kinds() -> None:
    known = Difficulty()
    assert (known.success("e", "t1", "easy"), known.worth("e", "t1", "easy")) == (0.5, 1.0)
    known.record([solved("e", "t0", "easy", R, R, R, R), solved("e", "t9", "easy", U, U)])
    assert known.success("e", "t0", "easy") == known.success("e", "t1", "easy") == 1.0
    assert known.success("e", "t1", "hard") == known.success("other", "t0", "easy") == 0.5
    known.record([solved("e", "t1", "easy", R, W, U)])
    assert known.success("e", "t1", "easy") == 0.5
    assert known.success("e", "t2", "easy") == pytest.approx(0.95)  # 0.9 * 1 + 0.1 * 0.5
    again = Difficulty()
    again.restore(json.loads(json.dumps(known.state())))
    assert again == known


def test_focus_passes_over_what_is_always_or_never_solved() -> None:
    kinds = ["easy", "middling"] * 500
    ids = [str(i) for i in range(len(kinds))]
    asked = {}
    for focus in (0.0, 0.8):
        frontier = Frontier([TaskSource("e", ids, kinds=kinds)], size=2, seed=0, focus=focus)
        frontier.difficulty.record([solved("e", "a", "easy", R, R), solved("e", "b", "middling", R, W)])
        requests = [frontier.next() for _ in range(400)]
        assert len({request.id for request in requests}) == 400
        asked[focus] = sum(kinds[int(request.task)] == "easy" for request in requests) / 400
    assert asked[0.0] == pytest.approx(0.5, abs=0.06)
    assert asked[0.8] == pytest.approx(1 / 6, abs=0.05)  # 0.2 of the easy ones are left beside all others
    assert frontier.passed > 100
    resumed = Frontier([TaskSource("e", ids, kinds=kinds)], size=2, seed=0, focus=0.8)
    resumed.restore(json.loads(json.dumps(frontier.state())))
    assert [resumed.next() for _ in range(50)] == [frontier.next() for _ in range(50)]


def test_passed_over_tasks_do_not_count_as_an_envs_share() -> None:
    sources = [TaskSource("a", [str(i) for i in range(100)]), TaskSource("b", [str(i) for i in range(100)])]
    mixed = Frontier(sources, size=2, seed=0, focus=0.9)
    mixed.difficulty.record([solved("a", str(i), "", R, R) for i in range(90)])
    envs = [mixed.next().env_id for _ in range(60)]
    assert (envs.count("a"), envs.count("b")) == (30, 30)


def test_resume_plays_again_what_was_in_flight_and_skips_nothing() -> None:
    whole = RecordedRollouts()
    pipeline = Pipeline(whole, frontier(), groups=2, max_staleness=1, steps=5)
    seen = []
    for version in range(5):
        groups = pipeline.batch(version)
        seen += [g.id for g in groups]
        pipeline.consumed(groups)
        if version == 1:
            state = pipeline.state()
    resumed = Pipeline(RecordedRollouts(), frontier(), groups=2, max_staleness=1, steps=5)
    resumed.restore(state, 2)
    again = []
    for version in range(2, 5):
        groups = resumed.batch(version)
        again += [g.id for g in groups]
        resumed.consumed(groups)
    assert seen[:4] + again == seen
