"""Figures of an evaluation, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentgym.trainers.evaluation import report, report_tasks, shown, success, unscored_remark
from agentgym.types import Outcome, StopReason, Trajectory


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


def test_pass_at_k_and_a_clustered_error() -> None:
    played = [
        episode("1", WON),
        episode("1", WON),
        episode("2", LOST),
        episode("2", WON),
        episode("3", LOST),
        episode("3", LOST),
    ]
    figures = report_tasks(played)
    assert figures["pass@2"] == pytest.approx(2 / 3)
    # mean 1/2; sums of (x - mean) by task: 1, 0, -1; sqrt(2) / 6
    assert figures["stderr"] == pytest.approx(2**0.5 / 6)
    assert report_tasks([]) == {}
