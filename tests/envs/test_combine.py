"""Several graders as one: who is asked, what counts, and when there is no verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.envs.combine import all_of, any_of, lowest, majority, product
from agentgym.envs.script import say
from agentgym.envs.tool_env import ToolEnv
from agentgym.envs.verifiers.consistency import Consistency
from agentgym.envs.verifiers.verdict import Verdict
from agentgym.errors import ConfigError, VerifierFault
from agentgym.tools.driving import drive
from agentgym.tools.episode import Episode
from agentgym.types import Outcome, Task

TASK = Task("t", "?")
YES, NO, BROKEN = 1.0, 0.0, None
Values = tuple[float | None, ...]


def graders(values: Values, asked: list[int] | None = None) -> list[Any]:
    def make(i: int, value: float | None) -> Any:
        async def grader(task: Task, answer: str, episode: Episode) -> float:
            if asked is not None:
                asked.append(i)
            if value is None:
                raise RuntimeError("out of order")
            return value

        return grader

    return [make(i, value) for i, value in enumerate(values)]


def verdict(combine: Callable[..., Any], values: Values, asked: list[int] | None = None) -> Verdict:
    found: Verdict = drive(combine(*graders(values, asked))(TASK, "x", Episode(TASK, np.random.default_rng(0))))
    return found


@pytest.mark.parametrize(
    ("combine", "values", "worth"),
    [
        (all_of, (BROKEN, YES), None),
        (all_of, (YES, YES), 1.0),
        (all_of, (YES, 0.9), 0.0),
        (all_of, (YES, BROKEN), None),
        (all_of, (BROKEN, NO), 0.0),
        (any_of, (NO, 0.9), 0.0),
        (any_of, (BROKEN, YES), 1.0),
        (any_of, (NO, BROKEN), None),
        (majority, (YES, YES, NO), 1.0),
        (majority, (YES, NO), 0.0),
        (majority, (YES, BROKEN, YES), 1.0),
        (majority, (YES, BROKEN, NO), None),
        (majority, (BROKEN, NO, NO), 0.0),
        (product, (0.5, 0.5, YES), 0.25),
        (product, (0.5, BROKEN), None),
        (product, (BROKEN, NO), 0.0),
        (lowest, (0.5, 0.25), 0.25),
        (lowest, (0.5, BROKEN), None),
    ],
)
def test_what_they_make_of_it(combine: Callable[..., Any], values: Values, worth: float | None) -> None:
    found = verdict(combine, values)
    if worth is None:
        assert found.outcome is Outcome.error
        assert "out of order" in found.reason
    else:
        assert (found.value, bool(found)) == (worth, worth == 1.0)


@pytest.mark.parametrize(
    ("combine", "values", "asked"),
    [(all_of, (NO, YES), [0]), (any_of, (YES, NO), [0]), (majority, (YES, YES, NO), [0, 1]), (product, (NO, 0.5), [0])],
)
def test_who_is_certain_asks_no_further(combine: Callable[..., Any], values: Values, asked: list[int]) -> None:
    seen: list[int] = []
    verdict(combine, values, seen)
    assert seen == asked


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, None]), min_size=1, max_size=5), st.data())
def test_a_verdict_is_the_one_that_the_broken_ones_could_not_have_changed(values: Any, data: Any) -> None:
    combine = data.draw(st.sampled_from([all_of, any_of, majority, product, lowest]))
    found = verdict(combine, tuple(values))
    if found.outcome is not Outcome.error:
        mended = tuple(data.draw(st.floats(0, 1)) if v is None else v for v in values)
        assert verdict(combine, mended).value == found.value


def test_in_an_env() -> None:
    def right(task: Task, answer: str, episode: Episode) -> Outcome:
        return Outcome.correct if answer == "7" else Outcome.incorrect

    def short(task: Task, answer: str, episode: Episode) -> Verdict:
        return Verdict(Outcome.correct, "fine") if len(answer) < 9 else Verdict(Outcome.error, "the ruler broke")

    env = ToolEnv([TASK], reward=all_of(right, lowest(short)), holdout=0)
    env.reset(seed=0)
    assert env.step("7")[1] == 1.0
    env.reset(seed=0)
    assert env.step("seven, I should think")[1] == 0.0
    assert env.episode is not None
    assert env.episode.reasons == {"reward": "all_of: right: 0"}
    env = ToolEnv([TASK], reward=any_of(short, right), holdout=0)
    env.reset(seed=0)
    with pytest.raises(VerifierFault, match="the ruler broke"):
        env.step("seven, I should think")
    drive(env.areset(seed=0))
    assert drive(env.astep(say("7"))).outcome is Outcome.correct


def test_graders_that_are_objects_have_a_name() -> None:
    def right(task: Task, answer: str, episode: Episode) -> float:
        return 1.0

    env = ToolEnv([TASK], reward=[right, Consistency()], holdout=0)
    env.reset(seed=0)
    assert env.step("7")[4]["reward_components"] == {"right": 1.0, "consistency": 0.0}
    assert env.episode is not None
    assert env.episode.reasons == {"consistency": "never shown: 7"}


def test_what_is_wrong_with_them() -> None:
    with pytest.raises(ConfigError, match="no graders"):
        all_of()
    assert "from 0 to 1" in verdict(lowest, (2.0, 0.5)).reason
