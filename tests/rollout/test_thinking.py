"""A budget for reasoning: it is closed for the model, and what was given is never trained."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from agentgym.engines.scripted import ScriptedEngine
from agentgym.protocols import Start, Step
from agentgym.rollout.agent import Agent
from agentgym.rollout.episode import Limits, Play, run_episode
from agentgym.rollout.parsers import get_parser, known_formats
from agentgym.rollout.record import from_row, to_row
from agentgym.rollout.renderer import ChatRenderer
from agentgym.rollout.thinking import ThinkingEngine
from agentgym.trainers.batch import build_rows
from agentgym.trainers.pipeline import oldest_version
from agentgym.trainers.tiny_model import build_tokenizer
from agentgym.types import GIVEN, Completion, Group, Message, Outcome, SamplingParams, Task


@pytest.fixture(scope="module")
def renderer() -> ChatRenderer:
    return ChatRenderer(build_tokenizer(["how many nuts are there? I think there are seven of them"]))


class Thinker:
    """Reasons without end, until somebody closes the reasoning; then it answers."""

    def __init__(self, renderer: ChatRenderer, before: str = "<think>\n"):
        self.thoughts = renderer.written(before + "nuts and nuts " * 40).tolist()
        self.answer = [*renderer.written("seven").tolist(), renderer.stop_ids[0]]
        self.closed = renderer.written("\n</think>\n\n").tolist()

    def __call__(self, ids: list[int], params: SamplingParams) -> Sequence[int]:
        return self.answer if ids[-len(self.closed) :] == self.closed else self.thoughts


def ask(renderer: ChatRenderer, script: object, budget: int, room: int) -> tuple[ScriptedEngine, Completion]:
    engine = ScriptedEngine(script, version=3)  # type: ignore[arg-type]
    bounded = ThinkingEngine(engine, renderer, renderer.parser, budget)
    params = SamplingParams(room, stop_ids=renderer.stop_ids, seed=7)
    return engine, asyncio.run(bounded.generate([1, 2, 3], params, session="s"))


def test_reasoning_ends_at_the_budget_and_the_model_answers(renderer: ChatRenderer) -> None:
    thinker = Thinker(renderer)
    engine, done = ask(renderer, thinker, budget=12, room=100)
    assert done.ids.tolist() == [*thinker.thoughts[:12], *thinker.closed, *thinker.answer]
    assert done.versions.tolist() == [3] * 12 + [GIVEN] * len(thinker.closed) + [3] * len(thinker.answer)
    assert done.finish_reason == "stop"
    assert done.tokens == 12 + len(thinker.answer)
    message = renderer.parser.parse(renderer.decode(done.ids.tolist())).message()
    assert (message.content, (message.reasoning or "")[:8]) == ("seven", "nuts and")
    # the second request continues the first, token for token, with random numbers of its own
    (first, _, _), (second, params, session) = engine.calls
    assert second == [*first, *done.ids.tolist()[: 12 + len(thinker.closed)]]
    assert (params.max_tokens, session) == (100 - 12, "s")
    assert params.seed != 7


@pytest.mark.parametrize("text", ["<think>\nfew\n</think>\n\nseven", "seven"])
def test_a_message_that_keeps_to_it_is_asked_for_once(renderer: ChatRenderer, text: str) -> None:
    engine, done = ask(renderer, [[*renderer.written(text), renderer.stop_ids[0]]], budget=60, room=100)
    assert renderer.decode(done.ids.tolist()) == text
    assert (len(engine.calls), done.count) == (1, None)


def test_what_is_no_reasoning_goes_on(renderer: ChatRenderer) -> None:
    whole = [*renderer.written("nuts and nuts " * 10).tolist(), renderer.stop_ids[0]]
    start = [1, 2, 3]
    _, done = ask(renderer, lambda ids, params: whole[len(ids) - len(start) :], budget=5, room=100)
    assert done.ids.tolist() == whole
    assert GIVEN not in done.versions


def test_no_room_for_an_answer_is_a_length_stop(renderer: ChatRenderer) -> None:
    _, done = ask(renderer, Thinker(renderer), budget=12, room=12)
    assert (done.finish_reason, len(done.ids)) == ("length", 12)


class OneQuestion:
    async def areset(self, *, seed: int, options: object = None) -> Start:
        return Start(Task("t", "how many nuts?"), (Message("user", "how many nuts?"),))

    async def astep(self, message: Message) -> Step:
        right = message.text == "seven"
        return Step(reward=float(right), terminated=True, outcome=Outcome.correct if right else Outcome.incorrect)


def test_given_tokens_are_context_in_training_and_in_files(renderer: ChatRenderer) -> None:
    thinker = Thinker(renderer)
    engine = ThinkingEngine(ScriptedEngine(thinker, version=3), renderer, renderer.parser, 12)
    agent = Agent(engine, renderer, renderer.parser)
    played = run_episode(OneQuestion(), agent, Play("p/0", "e", {}, seed=1), Limits(message_tokens=100))  # type: ignore[arg-type]
    (trajectory,) = asyncio.run(played)
    assert trajectory.reward == 1.0
    assert trajectory.sampled_tokens == 12 + len(thinker.answer)
    again = from_row(to_row(trajectory))
    group = Group("g", "t", "e", (again,))
    assert oldest_version(group) == 3
    credit = [[np.ones(len(again.turns[0].completion.ids), np.float32)]]
    batch = build_rows([group], [credit], version=4, max_staleness=1)
    (row,) = batch.rows
    assert row.trained == 12 + len(thinker.answer) == batch.sampled_tokens
    assert (batch.stale_tokens, batch.staleness_max) == (0, 1)
    trained = row.ids[row.mask > 0].tolist()
    assert trained == [*thinker.thoughts[:12], *thinker.answer]


@pytest.mark.parametrize("name", known_formats())
def test_every_format_closes_what_it_opened(name: str) -> None:
    parser = get_parser(name)
    opened = parser.format(Message("assistant", "so", reasoning="because")).partition("because")[0] + "beca"
    assert parser.closing("so it is") == ""
    if not (closing := parser.closing(opened)):
        assert parser.parse(opened).reasoning is None, "it was reasoning and has no end"
        return
    begins = parser.format(Message("assistant", "so")) if name == "gpt_oss_harmony" else "so"
    parsed = parser.parse(opened + closing + begins)
    assert (parsed.reasoning, parsed.content) == ("beca", "so")
