"""Agents ask for the experts of each token once, and know whose they are."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentgym.rollout.agent import Agent
from agentgym.rollout.episode import Limits, Play, run_episode
from agentgym.rollout.parsers import get_parser
from agentgym.rollout.renderer import ChatRenderer
from agentgym.rollout.thinking import ThinkingEngine
from agentgym.trainers.tiny_model import build_tokenizer
from agentgym.types import SamplingParams, Trajectory
from tests.rollout.telling import Telling, known, rows_of
from tests.rollout.test_episode import CALL, END, Letters, Parts
from tests.rollout.test_thinking import Thinker


def play(engine: Any, rewrites: bool = False, routing: bool = True) -> Trajectory:
    agent = Agent(engine, Letters(rewrites), get_parser("hermes"), routing=routing)
    (done,) = asyncio.run(run_episode(Parts(), agent, Play("p", "parts", {"index": 0}, seed=1), Limits()))
    return done


def says(*replies: str) -> Telling:
    return Telling([[*map(ord, reply), END] for reply in replies])


def test_each_turn_is_asked_for_what_the_ones_before_do_not_tell() -> None:
    engine = says(CALL, CALL, "7")
    done = play(engine)
    (row,) = rows_of(done)
    assert known(row) == [True] * (len(row.ids) - 1) + [False]
    assert sum(engine.told) == len(row.ids) - 1, "nothing was told twice"


def test_a_rewritten_past_is_asked_for_anew() -> None:
    for row in rows_of(play(says(CALL, "7"), rewrites=True)):
        assert known(row) == [True] * (len(row.ids) - 1) + [False]


def test_nothing_is_asked_for_unless_it_is_wanted() -> None:
    engine = says(CALL, "7")
    done = play(engine, routing=False)
    assert [params.experts_from for _, params, _ in engine.calls] == [None, None]
    assert [turn.completion.experts for turn in done.turns] == [None, None]


@pytest.fixture(scope="module")
def renderer() -> ChatRenderer:
    return ChatRenderer(build_tokenizer(["how many nuts are there? I think there are seven of them"]))


@pytest.mark.parametrize("room", [100, 20])
def test_a_reasoning_that_is_closed_for_the_model(renderer: ChatRenderer, room: int) -> None:
    """Two answers make one, and their experts too; where there is no room for the second, none are told."""
    thinker = Thinker(renderer)
    engine = Telling(thinker)
    bounded = ThinkingEngine(engine, renderer, renderer.parser, 12)
    params = SamplingParams(room, stop_ids=renderer.stop_ids, seed=7, experts_from=1)
    done = asyncio.run(bounded.generate([1, 2, 3], params))
    ids = [1, 2, 3, *done.ids.tolist()]
    assert done.experts is not None
    assert done.experts[:, 0, 0].tolist() == ids[1:-1]
    assert sum(engine.told) == len(ids) - 2
