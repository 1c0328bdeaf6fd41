"""`agentgym/Store-v0`: hidden prices, busy tools and exact sums; the environment that a laptop can learn."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from agentgym.envs.busy import may_be_busy, served, set_busy
from agentgym.envs.script import call, say
from agentgym.envs.tasks import TaskSet, chosen_kinds, held_out
from agentgym.envs.tool_env import ToolEnv
from agentgym.protocols import Policy
from agentgym.tools.arguments import BadArguments
from agentgym.tools.calculator import calculate
from agentgym.tools.decorator import tool
from agentgym.tools.episode import Episode
from agentgym.types import Message, Task

KINDS = ("calc", "lookup", "two_lookups")
ITEMS = (
    *("apple", "banana", "bread", "butter", "candle", "cheese", "coffee", "cup", "egg", "fish"),
    *("honey", "lamp", "lemon", "milk", "pear", "plum", "rice", "salt", "soap", "tea"),
)
PRICES = range(2, 100)
SIZES = {"train": 20_000, "test": 3_000}
HOLDOUT = 1 / 6
MISTAKE = "0"
"""The wrong answer of the demonstrations, always the same, so that it can be their most likely one."""
CHATTER = (
    "Let me think about this step by step before I do anything.",
    "I have to be sure about each number, and so I ask a tool.",
    "It is good to be careful here, since one mistake spoils it all.",
    "When the tool has answered I will look at what is left to do.",
)
"""What a demonstration may say before a call; it costs tokens and earns nothing."""


@tool
def lookup(item: str, episode: Episode) -> int:
    """The price of an item of the store. A busy tool should be called again.

    Args:
        item: the item's name, such as pear
    """
    may_be_busy(episode)
    price: int | None = episode.state["prices"].get(item)
    if price is None:
        raise BadArguments(f"the store has no {item!r}")
    return price


@tool
def calculator(expression: str, episode: Episode) -> str:
    """Compute an arithmetic expression of numbers. A busy tool should be called again. Answer with the bare number.

    Args:
        expression: the expression, such as 37*4+12
    """
    may_be_busy(episode)
    return str(calculate(expression))


class StoreEnv(ToolEnv):
    """Questions about a store whose prices are hidden.

    ## Description
    "What is pear*47+12?": the price of a pear is drawn anew for each episode and only the `lookup` tool knows it; the
    product and sum are large enough to need the `calculator`. Each call is answered "busy" with probability `busy`
    and must then be made again. Nothing in the question gives the answer away, so guessing pays nothing.

    ## Kinds
    `calc`: "What is 37*41+12?". `lookup`: one item, "What is pear*47+12?". `two_lookups`: "What is pear*47+plum?".

    ## Tools
    `lookup(item)` -> price, 2 to 99. `calculator(expression)` -> its exact value. Either may say `busy`.

    ## Starting state
    20 items, each with a price drawn from the episode's generator. No system message.

    ## Reward
    `reward`: 1 if the agent's own last message is the exact number and nothing else (spaces aside), else 0.
    Tag `after_busy`: a call of this episode was answered busy. Metrics: `busy`, `tool_calls`, `tool_errors`.

    Progress, which is paid only where it is asked for: the share that is done of looking up each item of the question,
    letting the calculator find the answer, and giving it; 1 with the right answer, however it was found.

    ## Episode end
    Terminated by an answer (or 3 malformed messages in a row), truncated after `max_turns` = 10 messages.

    ## Tasks
    20,000 generated train tasks and 3,000 test tasks; task i is of kind i % 3. A question is held out by its hash.

    ## Arguments
    busy: probability that a call is answered "busy". kinds: those to play, default all.
    demo_retry: probability that the `demo` expert calls a busy tool again; else it gives the wrong answer "0".
    demo_two_lookups: share of `two_lookups` among `demo_tasks`; the others are split evenly.
    demo_mistakes: probability that the `demo` expert answers "0" straight away, without any tool; where two lookups
        are needed it has two occasions to.
    demo_repeats: probability, after each answered call, that it makes the same call again, as if to be sure.
    demo_chatter: before each call it says 0 to this many sentences, evenly drawn, of no use to anyone.

    ## Versions
    v0: first.
    """

    tools = (lookup, calculator)
    max_turns = 10

    def __init__(
        self,
        *args: Any,
        busy: float = 0.15,
        kinds: Sequence[str] = KINDS,
        demo_retry: float = 0.085,
        demo_two_lookups: float = 0.072,
        demo_mistakes: float = 0.5,
        demo_repeats: float = 0.35,
        demo_chatter: int = 0,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.busy = busy
        self.kinds = chosen_kinds("Store-v0", kinds, KINDS)
        self.demo_retry = demo_retry
        self.demo_two_lookups = demo_two_lookups
        self.demo_mistakes = demo_mistakes
        self.demo_repeats = demo_repeats
        self.demo_chatter = demo_chatter

    def make_tasks(self, split: str) -> TaskSet:
        tasks = generate(split)
        return tasks if set(self.kinds) == set(KINDS) else TaskSet(task for task in tasks if task.kind in self.kinds)

    def setup(self, episode: Episode) -> None:
        drawn = episode.rng.random(len(ITEMS)) * len(PRICES) + PRICES.start  # five times as fast as rng.integers
        prices = drawn.astype(np.int64).tolist()
        episode.state = {"prices": dict(zip(ITEMS, prices, strict=True))}
        set_busy(episode, self.busy)

    def reward(self, task: Task, answer: str, episode: Episode) -> float:
        return float(answer.strip() == str(solve(task, episode.state["prices"])))

    def progress(self, episode: Episode) -> float:
        right = str(solve(episode.task, episode.state["prices"]))
        if episode.answer.strip() == right:
            return 1.0
        needed = {term for term in episode.task.metadata["terms"] if term in ITEMS}
        known = {result.call.arguments["item"] for result in served(episode, "lookup")}
        found = any(result.text == right for result in served(episode, "calculator"))
        return (len(needed & known) + found) / (len(needed) + 2)

    def expert(self, task: Task, seed: int, style: str = "gold") -> Policy:
        """`gold` looks everything up, retries and is right; `demo` is the imperfect play of warm starts."""
        return Shopper(task, None if style == "gold" else self, random.Random(seed))

    def demo_tasks(self, n: int, seed: int = 0) -> list[Task]:
        """`n` train tasks to demonstrate, `two_lookups` among them with their share."""
        rng = random.Random(seed)
        tasks = self.tasks("train")
        kinds = [kind for kind in KINDS if kind in self.kinds]  # in which order the tasks take turns
        rare = [i for i, kind in enumerate(kinds) if kind == "two_lookups"]
        usual = [i for i, kind in enumerate(kinds) if kind != "two_lookups"]
        chosen = []
        for _ in range(n):
            few = not usual or (bool(rare) and rng.random() < self.demo_two_lookups)
            kind = rare[0] if few else usual[rng.randrange(len(usual))]
            chosen.append(tasks[rng.randrange(len(tasks) // len(kinds)) * len(kinds) + kind])
        return chosen


class Shopper:
    """Plays the store by what it reads: looks the items up, puts the prices in, calculates, answers.

    With `habits` (an env's demo_* numbers) it makes the mistakes that they ask for.
    """

    def __init__(self, task: Task, habits: StoreEnv | None, rng: random.Random):
        self._terms: tuple[str, ...] = task.metadata["terms"]
        self._habits = habits
        self._rng = rng

    def __call__(self, conversation: Sequence[Message]) -> Message:
        message = self._next(conversation)
        if message.tool_calls and self._habits is not None and self._habits.demo_chatter:
            said = self._rng.randrange(self._habits.demo_chatter + 1)
            message = replace(message, content=" ".join(itertools.islice(itertools.cycle(CHATTER), said)))
        return message

    def _next(self, conversation: Sequence[Message]) -> Message:
        seen: dict[str, str] = {}
        calls: list[tuple[str, dict[str, Any]]] = []
        busy, result = False, None
        for message in conversation:
            if message.role == "assistant":
                calls += [(made.name, dict(made.arguments)) for made in message.tool_calls]
            elif message.role == "tool":
                busy = message.text == "busy"
                if not busy and "item" in calls[-1][1]:
                    seen[calls[-1][1]["item"]] = message.text
                elif not busy:
                    result = message.text
        call_id, unsure = f"call_{len(calls)}", False
        if self._habits is not None:
            if self._gives_up(self._habits, calls, busy):
                return say(MISTAKE)
            unsure = bool(calls) and not busy and self._rng.random() < self._habits.demo_repeats
        if busy or unsure:
            return call(calls[-1][0], call_id, **calls[-1][1])
        if result is not None:
            return say(result)
        for term in self._terms:
            if term in ITEMS and term not in seen:
                # a question that needs two lookups discourages twice
                if seen and self._habits is not None and self._rng.random() < self._habits.demo_mistakes:
                    return say(MISTAKE)
                return call("lookup", call_id, item=term)
        return call("calculator", call_id, expression="".join(seen.get(term, term) for term in self._terms))

    def _gives_up(self, habits: StoreEnv, calls: Sequence[Any], busy: bool) -> bool:
        if busy:
            return self._rng.random() >= habits.demo_retry
        return not calls and self._rng.random() < habits.demo_mistakes


def solve(task: Task, prices: dict[str, int]) -> int:
    """The exact answer, given an episode's prices. The terms read `a * b + c`."""
    a, _, b, _, c = task.metadata["terms"]
    return _worth(a, prices) * _worth(b, prices) + _worth(c, prices)


def _worth(term: str, prices: dict[str, int]) -> int:
    return prices[term] if term in prices else int(term)


@lru_cache(maxsize=len(SIZES))
def generate(split: str) -> TaskSet:
    """The tasks of a split, always the same ones: kind i % 3, no question twice, each split by the question's hash."""
    kinds = [_questions(kind, split) for kind in KINDS]
    return TaskSet(_task(split, i, KINDS[i % 3], next(kinds[i % 3])) for i in range(SIZES[split]))


def _task(split: str, index: int, kind: str, terms: tuple[str, ...]) -> Task:
    return Task(f"{split}-{index}", f"What is {''.join(terms)}?", None, kind, {"terms": terms})


def _questions(kind: str, split: str) -> Iterator[tuple[str, ...]]:
    draw = random.Random(f"Store-v0 {kind}").random  # scaled by hand: three times as fast as randrange
    seen: set[str] = set()
    for _ in itertools.count():
        first = int(draw() * len(ITEMS))
        second = (first + 1 + int(draw() * (len(ITEMS) - 1))) % len(ITEMS)
        a = ITEMS[first] if kind != "calc" else str(2 + int(draw() * 98))
        c = ITEMS[second] if kind == "two_lookups" else str(2 + int(draw() * 98))
        terms = (a, "*", str(11 + int(draw() * 89)), "+", c)
        text = "".join(terms)
        if text not in seen and held_out(text, HOLDOUT) == (split == "test"):
            seen.add(text)
            yield terms
