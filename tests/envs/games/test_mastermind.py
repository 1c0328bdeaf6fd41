"""Mastermind-v0: the marks, the guesses that are left, and a player that always finds the code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.envs.games.mastermind import SHAPES, MastermindEnv, generate, marks
from agentgym.envs.script import call, say
from agentgym.errors import ConfigError
from agentgym.tools.driving import drive

codes = st.lists(st.sampled_from("abcd"), min_size=4, max_size=4).map(tuple)


@pytest.mark.parametrize(
    ("secret", "tried", "told"),
    [("abcd", "abcd", (4, 0)), ("aabb", "abba", (2, 2)), ("aaab", "baaa", (2, 2)), ("abcd", "aaaa", (1, 0))],
)
def test_marks(secret: str, tried: str, told: tuple[int, int]) -> None:
    assert marks(tuple(secret), tuple(tried)) == told


@given(codes, codes)
def test_marks_are_the_same_both_ways(one: tuple[str, ...], two: tuple[str, ...]) -> None:
    placed, elsewhere = marks(one, two)
    assert (placed, elsewhere) == marks(two, one)
    assert 0 <= placed + elsewhere <= 4
    assert (placed == 4) == (one == two)


@pytest.mark.parametrize("kind", SHAPES)
def test_gold_play_needs_no_more_guesses_than_there_are(kind: str, play: Callable[..., Any]) -> None:
    env = MastermindEnv(kinds=[kind])
    needed = []
    for seed in range(60):
        _, step, _ = play(env, "gold", seed=seed, index=seed)
        assert (step.reward, step.metrics["inconsistent"], step.tags) == (1.0, 0, ())
        needed.append(step.metrics["guesses"])
    assert max(needed) < env.tries
    assert sum(needed) / len(needed) > 3


def start(env: MastermindEnv) -> tuple[list[str], list[str]]:
    """(the code, its colours in question) of the first task's episode."""
    drive(env.areset(seed=1, options={"index": 0}))
    assert env.episode is not None
    return list(env.episode.state["secret"]), list(env.episode.task.metadata["palette"])


def told(env: MastermindEnv, code: str) -> str:
    return drive(env.astep(call("guess", code=code))).messages[0].text


def test_guesses_run_out_and_wrong_ones_are_told() -> None:
    env = MastermindEnv(tries=2)
    secret, palette = start(env)
    assert told(env, "puce puce puce").startswith("error: code: no 'puce' among the colours; give 3 of")
    assert told(env, " ".join(secret[:2])).startswith("error: code: 2 colours; give 3 of")
    wrong = [next(colour for colour in palette if colour not in secret)] * 3
    assert told(env, " ".join(wrong)) == "0 in place, 0 elsewhere"
    assert told(env, ", ".join(wrong).upper()) == "0 in place, 0 elsewhere"
    assert told(env, " ".join(secret)) == "no guess is left; answer with the code"
    end = drive(env.astep(say(", ".join(secret))))
    assert (end.reward, end.tags, end.metrics["inconsistent"]) == (1.0, ("inconsistent",), 1)


def test_only_the_code_pays() -> None:
    env = MastermindEnv()
    secret, palette = start(env)
    for text, reward in (
        (" ".join(secret), 1.0),
        (", ".join(secret), 1.0),
        (" ".join(secret[:2]), 0.0),
        (" ".join([*secret, secret[0]]), 0.0),
        (f"The code is {' '.join(secret)}", 0.0),
        (" ".join(palette), 0.0),
    ):
        start(env)
        assert drive(env.astep(say(text))).reward == reward


def test_codes_are_even(play: Callable[..., Any]) -> None:
    env = MastermindEnv()
    first: Counter[int] = Counter()
    for seed in range(600):
        drive(env.areset(seed=seed, options={"index": 0}))
        assert env.episode is not None
        first[env.episode.task.metadata["palette"].index(env.episode.state["secret"][0])] += 1
    assert max(first.values()) / 600 < 1 / 6 + 0.06


def test_tasks_and_arguments() -> None:
    prompts = [task.prompt for split in ("train", "test") for task in generate(split)]
    assert len(set(prompts)) == len(prompts) == 3_600
    for wrong in ({"kinds": ["long"]}, {"kinds": "short"}, {"tries": 0}):
        with pytest.raises(ConfigError, match="Mastermind-v0: "):
            MastermindEnv(**wrong)  # type: ignore[arg-type]


def test_careless_demonstrations_often_fail(play: Callable[..., Any]) -> None:
    env = MastermindEnv(demo_mistakes=0.0, demo_careless=1.0)
    ends = [play(env, "demo", seed=seed, index=seed) for seed in range(60)]
    assert sum(step.reward for _, step, _ in ends) < 20
    assert all(messages[-1].text == "unknown" for _, step, messages in ends if not step.reward)
