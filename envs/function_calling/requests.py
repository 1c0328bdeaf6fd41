"""The generated tasks: requests to a household, and the scripted players that serve them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from agentgym.envs.function_calling.household import ELSEWHERE, FAMILIES, FUNCTIONS, REQUESTS
from agentgym.envs.function_calling.matching import Answer, mismatch, right_calls
from agentgym.envs.script import say
from agentgym.envs.tasks import TaskSet, held_out
from agentgym.protocols import Policy
from agentgym.tools.episode import Episode
from agentgym.tools.toolset import ToolSet
from agentgym.types import Message, Task, ToolCall

SYSTEM = "Call the functions. Then answer with their numbers, or none."
KINDS = ("single", "multiple", "parallel", "irrelevant", "two_turns")
SIZES = {"train": 10_000, "test": 2_000}
HOLDOUT = 1 / 6
NONE = "none"
"""The right answer where no function serves the request."""
GIVEN_UP = "sorry"
"""What demonstrations say that give up: always wrong, and always the same, so that it can be their likeliest answer."""


class Requests:
    """Tasks of the household. `Task.answer` is one BFCL answer a user turn."""

    def toolset(self, task: Task) -> ToolSet:
        return _toolset(tuple(task.metadata["functions"]))

    def setup(self, episode: Episode) -> None:
        # what was accepted and answered since the user last spoke, and how many turns were right so far
        episode.state.update(made=[], numbers=[], turn=0, right=0)

    def reply(self, episode: Episode, message: Message) -> Message | None:
        state, further = episode.state, episode.task.metadata["further"]
        if state["turn"] >= len(further):
            return None
        state["right"] += self._is_right(episode, message.text)
        said = Message("user", further[state["turn"]])
        state.update(made=[], numbers=[], turn=state["turn"] + 1)
        return said

    def score(self, task: Task, answer: str, episode: Episode) -> Mapping[str, float]:
        state, last = episode.state, len(task.metadata["further"])
        right = state["right"] + (self._is_right(episode, answer) if state["turn"] == last else 0)
        return {"reward": float(right == last + 1), "turns_right": right / (last + 1)}

    def _is_right(self, episode: Episode, said: str) -> bool:
        """Whether the calls since the user last spoke are those that were asked for, and their numbers are told."""
        state = episode.state
        answer: Answer = episode.task.answer[state["turn"]]
        functions = tuple(FUNCTIONS[name] for name in episode.task.metadata["functions"])
        if mismatch(state["made"], answer, functions):
            return False
        return sorted(said.split()) == (sorted(state["numbers"]) if answer else [NONE])

    def expert(self, task: Task, seed: int, habits: Any) -> Policy:
        return Servant(task, habits, random.Random(seed))


@lru_cache(maxsize=64)
def _toolset(names: tuple[str, ...]) -> ToolSet:
    known = {one.name: one for family in FAMILIES.values() for one in family}
    return ToolSet(known[name] for name in names)


class Servant:
    """Serves a request: its calls in one message, then their numbers. With habits it makes their mistakes."""

    def __init__(self, task: Task, habits: Any, rng: random.Random):
        functions = tuple(FUNCTIONS[name] for name in task.metadata["functions"])
        self._turns = [right_calls(answer, functions) for answer in task.answer]
        self._habits = habits
        self._rng = rng

    def __call__(self, conversation: Sequence[Message]) -> Message:
        asked = max(i for i, message in enumerate(conversation) if message.role == "user")
        told = [message.text for message in conversation[asked:] if message.role == "tool"]
        turn = sum(message.role == "user" for message in conversation) - 1
        if told:
            return say(" ".join(told))
        calls = self._turns[turn]
        if self._habits is not None:
            if self._rng.random() < (self._habits.demo_second_mistakes if turn else self._habits.demo_mistakes):
                return say(GIVEN_UP)
            if self._rng.random() >= self._habits.demo_parallel:
                calls = calls[:1]
        if not calls:
            return say(NONE)
        first = sum(len(message.tool_calls) for message in conversation)
        named = [ToolCall(f"call_{first + i}", one.name, one.arguments) for i, one in enumerate(calls)]
        return Message("assistant", "", tool_calls=tuple(named))


@lru_cache(maxsize=len(SIZES))
def generate(split: str) -> TaskSet:
    """The tasks of a split, always the same ones: kind i % 5, every request of a split by its hash."""
    kinds = [_tasks(kind, split) for kind in KINDS]
    return TaskSet(_named(f"{split}-{i}", next(kinds[i % len(KINDS)])) for i in range(SIZES[split]))


def _named(name: str, task: Task) -> Task:
    return Task(name, task.prompt, task.answer, task.kind, task.metadata)


def _tasks(kind: str, split: str) -> Iterator[Task]:
    rng = random.Random(f"FunctionCalling-v0 {kind}")
    while True:  # a request may come again within its split: some functions have few of them
        task = _draw(kind, rng)
        texts = (str(task.prompt), *task.metadata["further"])
        if all(held_out(text, HOLDOUT) == (split == "test") for text in texts):
            yield task


def _draw(kind: str, rng: random.Random) -> Task:
    family = [one.name for one in FAMILIES[rng.choice(list(FAMILIES))]]
    if kind == "irrelevant":
        return _task(kind, family, [(rng.choice(ELSEWHERE)(rng), [])])
    asked = [_request(rng.choice(family), rng) for _ in range(1 if kind in ("single", "multiple") else 2)]
    if kind == "single":
        family = [name for name in family if name in asked[0][1][0]]
    if kind == "parallel":
        (one, first), (other, second) = asked
        asked = [(f"{one} and {other}", first + second)]
    return _task(kind, family, asked)


def _request(name: str, rng: random.Random) -> tuple[str, list[Any]]:
    text, arguments = REQUESTS[name](rng)
    return text, [{name: {key: [value] for key, value in arguments.items()}}]


def _task(kind: str, functions: Sequence[str], asked: Sequence[tuple[str, list[Any]]]) -> Task:
    first, *further = [f"{text[0].upper()}{text[1:]}." for text, _ in asked]
    answer = tuple(calls for _, calls in asked)
    metadata = {"form": "requests", "functions": tuple(functions), "further": tuple(further)}
    return Task("", first, answer, kind, metadata)
