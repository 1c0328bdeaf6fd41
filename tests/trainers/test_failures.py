"""The failure budget: a share of the last episodes, whatever steps they were of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from agentgym.errors import RunError
from agentgym.trainers.failures import FailureBudget
from agentgym.types import Outcome, Trajectory


def played(make_group: Callable[..., Any], *errors: str | None) -> list[Trajectory]:
    group = make_group([None if error else 1.0 for error in errors])
    return [
        replace(t, error=error, outcome=Outcome.unscored if error else Outcome.correct)
        for t, error in zip(group.trajectories, errors, strict=True)
    ]


def test_a_burst_is_forgiven_where_the_window_is_longer(make_group: Callable[..., Any]) -> None:
    budget = FailureBudget(0.5, window=8)
    budget.spend(played(make_group, None, None, None, None), 1)
    budget.spend(played(make_group, "tool_error: x", "tool_error: x", "env_error: y", None), 2)
    with pytest.raises(
        RunError, match=r"step 3: 6 of the last 8 episodes are unscored; most often \(4\): tool_error: x"
    ) as e:
        budget.spend(played(make_group, "tool_error: x", "env_error: y", "tool_error: x", None), 3)
    assert "failure_budget = 0.5" in str(e.value)


def test_the_first_step_counts(make_group: Callable[..., Any]) -> None:
    with pytest.raises(RunError, match="step 1: 2 of the last 2"):
        FailureBudget(0.0, window=100).spend(played(make_group, "engine_error: gone", "engine_error: gone"), 1)
    FailureBudget(1.0, window=100).spend(played(make_group, "engine_error: gone"), 1)
