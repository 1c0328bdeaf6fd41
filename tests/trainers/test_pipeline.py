"""Dispatch is paced by the bound, every task is played once an epoch, and a resumed run goes on where it was."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agentgym.rollout.record import read_groups, write_groups
from agentgym.trainers.batch import build_rows
from agentgym.trainers.credit.grpo import grpo
from agentgym.trainers.difficulty import Difficulty
from agentgym.trainers.frontier import Frontier, TaskSource
from agentgym.trainers.pipeline import Pipeline, oldest_version
from agentgym.trainers.timed import TimedRollouts
from agentgym.types import Group, GroupRequest, Outcome, StopReason, Trajectory
from agentgym.weights import WeightUpdate


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

    def arrived(self) -> list[Group]:
        return []

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
        groups = pipeline.batch(version).groups
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
        groups = pipeline.batch(version).groups
        seen += [g.id for g in groups]
        pipeline.consumed(groups)
        if version == 1:
            state = pipeline.state()
    resumed = Pipeline(RecordedRollouts(), frontier(), groups=2, max_staleness=1, steps=5)
    resumed.restore(state, 2)
    again = []
    for version in range(2, 5):
        groups = resumed.batch(version).groups
        again += [g.id for g in groups]
        resumed.consumed(groups)
    assert seen[:4] + again == seen


def test_what_was_finished_outlives_a_resume(tmp_path: Path, make_group: Callable[..., Group]) -> None:
    """Only what was still being played is played again."""

    class Quick(RecordedRollouts):
        """Has played all but two."""

        def arrived(self) -> list[Group]:
            more = [self.receive() for _ in range(max(0, len(self.waiting) - 2))]
            return [replace(make_group([0.0, 1.0]), id=group.id) for group in more]

    pipeline = Pipeline(Quick(), frontier(), groups=2, max_staleness=3, steps=5)
    first = pipeline.batch(0).groups
    pipeline.consumed(first)
    (tmp_path / "buffer.jsonl").write_bytes(write_groups(pipeline.finished()))
    state, kept = json.loads(json.dumps(pipeline.state())), read_groups(tmp_path / "buffer.jsonl")
    assert len(kept) == 4
    assert len(state["in_flight"]) == 6
    again = Quick()
    resumed = Pipeline(again, frontier(), groups=2, max_staleness=3, steps=5)
    resumed.restore(state, 1, kept)
    assert [request.id for request in again.requests] == [name for name, *_ in state["in_flight"]][4:]
    assert resumed.started == pipeline.started == 8
    second = resumed.batch(1).groups
    assert second == kept[:2], "as they were, token for token"
    resumed.consumed(second)
    assert len(resumed.state()["in_flight"]) == 6


def test_groups_that_are_not_trainings_are_taken_aside() -> None:
    aside = []

    def take(group: Group) -> bool:
        if group.task_id == "3":
            aside.append(group.id)
        return group.task_id == "3"

    pipeline = Pipeline(RecordedRollouts(), frontier(), groups=2, max_staleness=4, steps=5, aside=take)
    drawn = [group.task_id for version in range(4) for group in pipeline.batch(version).groups]
    assert "3" not in drawn
    assert len(aside) == 1


def lengths(by_task: dict[int, int]) -> Callable[[GroupRequest, int], int]:
    """Tokens of an episode: 10, but for the first episodes of the tasks that are named."""
    return lambda request, episode: by_task.get(int(request.task), 10) if episode == 0 else 10


def test_of_what_has_finished_the_oldest_goes_first() -> None:
    played = TimedRollouts(lengths({}), slots=4, token_seconds=1.0)
    pipeline = Pipeline(played, frontier(40), groups=2, max_staleness=3, steps=8)
    pipeline.dispatch(0)
    played.wait(5.0)
    played.update(WeightUpdate(1))
    played.wait(1000.0)
    versions = [oldest_version(group) for v in range(4) for group in pipeline.batch(v).groups]
    assert versions == sorted(versions)
    assert versions[0] == 0


@pytest.mark.parametrize("bound", [1, 2, 4])
def test_a_straggler_of_forty_versions_is_trained_only_where_it_is_fresh(bound: int) -> None:
    """AReaL's rule, which counts submissions only, trains such an episode whole, at lag 40."""
    slow = frontier(400).next()
    tokens = 900 if bound == 1 else 450  # a step waits for play at 1: it lasts twice as long
    played = TimedRollouts(lengths({int(slow.task): tokens}), slots=64, token_seconds=1.0)
    pipeline = Pipeline(played, frontier(400), groups=2, max_staleness=bound, steps=60)
    seen, ages, kept, lost = 0, [], 0, 0
    for version in range(60):
        played.update(WeightUpdate(version))
        drawn = pipeline.batch(version)
        rows = build_rows(drawn.groups, [grpo(g) for g in drawn.groups], version=version, max_staleness=bound).rows
        for group, mine in zip(drawn.groups, np.array_split(np.arange(len(rows)), len(drawn.groups)), strict=True):
            for row in (rows[i] for i in mine):
                ages += list(version - row.versions[row.mask > 0])
                if group.id == slow.id and len(row.ids) > 100:
                    seen, kept, lost = version, row.trained, len(row.ids) - row.trained
        played.wait(10.0)
    assert seen >= 40
    assert max(ages) <= bound
    assert 0 < kept <= 20 * (bound + 2), "the tokens of its last versions are trained"
    assert lost > 0.8 * tokens


def test_groups_without_differences_are_replaced_up_to_a_bound() -> None:
    played = TimedRollouts(lengths({}), slots=64, token_seconds=1.0)
    dull = {str(task) for task in range(0, 40, 2)}
    pipeline = Pipeline(
        played, frontier(40), groups=4, max_staleness=1, steps=5, replace=9.0, teaches=lambda g: g.task_id not in dull
    )
    ended: list[str] = []
    for version in range(5):
        drawn = pipeline.batch(version)
        assert not dull & {group.task_id for group in drawn.groups}
        assert len(drawn.groups) == 4
        ended += [group.id for group in drawn.all]
        pipeline.consumed(drawn.all)
    assert len(set(ended)) == len(ended) == 20 + pipeline.replaced
    assert pipeline.replaced > 5
    assert len(pipeline.state()["in_flight"]) == 0, "no more was started than was used"

    never = Pipeline(played, frontier(40), groups=4, max_staleness=0, steps=1, replace=0.5, teaches=lambda g: False)
    drawn = never.batch(0)
    assert (len(drawn.groups), len(drawn.replaced)) == (4, 2)


def test_what_was_replaced_is_not_played_again_after_a_resume() -> None:
    def begin() -> Pipeline:
        played = TimedRollouts(lengths({}), slots=8, token_seconds=1.0)
        teaches = lambda group: int(group.task_id) % 3 > 0  # noqa: E731
        return Pipeline(played, frontier(60), groups=2, max_staleness=1, steps=6, replace=3.0, teaches=teaches)

    def play(pipeline: Pipeline, versions: range) -> list[str]:
        ended = []
        for version in versions:
            drawn = pipeline.batch(version)
            pipeline.consumed(drawn.all)
            ended += [group.id for group in drawn.all]
        return ended

    first = begin()
    done = play(first, range(3))
    second = begin()
    second.restore(json.loads(json.dumps(first.state())), 3)
    done += play(second, range(3, 6))
    assert len(set(done)) == len(done) == 12 + second.replaced
    asked = frontier(60)
    assert set(done) <= {asked.next().id for _ in range(len(done))}, "none is skipped"
