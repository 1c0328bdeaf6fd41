"""Figures of an evaluation, by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import pytest

from agentgym.trainers.evaluation import (
    EvalPlan,
    EvalSet,
    play_held_out,
    report,
    shown,
    success,
    unscored_remark,
)
from agentgym.trainers.rollouts import Rollouts
from agentgym.types import Group, GroupRequest, Outcome, StopReason, Trajectory


def episode(
    task: str, outcome: Outcome, kind: str = "a", tags: tuple[str, ...] = (), error: str | None = None
) -> Trajectory:
    reward = None if outcome is Outcome.unscored else float(outcome is Outcome.correct)
    made = Trajectory("id", task, "env", (), (), reward, {}, outcome, StopReason.completed)
    return replace(made, kind=kind, tags=tags, error=error)


WON, LOST, NONE = Outcome.correct, Outcome.incorrect, Outcome.unscored


def test_unscored_episodes_are_in_no_rate() -> None:
    played = [episode("1", WON), episode("2", LOST), episode("3", NONE, error="verifier_error: x")]
    assert success(played) == 0.5
    assert success(played[2:]) is None
    assert shown(success(played[2:])) == "none scored"
    assert unscored_remark(played) == "1 of 3 episodes are unscored; most often: verifier_error: x"
    assert unscored_remark(played[:2]) is None


def test_kinds_and_tags() -> None:
    played = [episode("1", WON, "a"), episode("2", LOST, "b", ("busy",)), episode("3", WON, "b", ("busy",))]
    figures = report(played, [])
    assert (figures["n"], figures["sampled"], figures["greedy"]) == (3, pytest.approx(2 / 3), None)
    assert figures["by_kind"] == {"a": 1.0, "b": 0.5}
    assert figures["busy"] == 0.5
    assert report([], played)["greedy"] == pytest.approx(2 / 3)


class Played:
    """Rollouts that first hand over what training had begun."""

    def __init__(self, left: list[Group]):
        self._groups = left

    def submit(self, requests: Sequence[GroupRequest]) -> None:
        self._groups += [Group(r.id, str(r.task), r.env_id, (episode(str(r.task), WON),)) for r in requests]

    def receive(self) -> Group:
        return self._groups.pop(0)


def test_what_training_left_under_way_is_not_evaluated() -> None:
    left = [Group("0:train-7", "train-7", "env", tuple(episode("train-7", LOST) for _ in range(8)))] * 2
    plan = EvalPlan((EvalSet("env", "test", 3),), seed=0)
    told: list[int] = []
    rollouts = cast("Rollouts", Played(left))
    played = play_held_out(rollouts, plan, greedy=False, played=lambda new: told.append(len(new)))
    assert [t.task_id for t in played] == ["0", "1", "2"]
    assert told == [1, 1, 1]
