"""Where every check plays: an env, a sample of its tasks over kinds, splits and seeds, and how gold plays them."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from typing import Any, TypeVar

from agentgym.errors import SandboxUnavailable
from agentgym.protocols import Policy, Start, Step
from agentgym.registry import make_env
from agentgym.tools.driving import drive_on_loop
from agentgym.types import Message, Outcome, StopReason, Task, ToolCall

T = TypeVar("T")
SPLITS = ("train", "test")
SCANNED = 2_000
"""Tasks of a split that are looked through for kinds."""
LONGEST = 100
"""Messages after which an episode is ended from outside."""
PER_KIND = 3
"""Cases of each kind that cheap players play, so that luck can be told from a hole."""
SANDBOXED = frozenset(("python", "shell", "read_file", "write_file", "edit_file", "list_files"))
"""Built-in tools that run in a sandbox of the episode's own."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One episode to be played: a task of a split, and a seed. Only itself is equal to it."""

    split: str
    index: int
    seed: int
    task: Task

    @property
    def options(self) -> dict[str, Any]:
        return {"index": self.index, "split": self.split}

    def __str__(self) -> str:
        kind = f" ({self.task.kind})" if self.task.kind else ""
        return f"{self.split} task {self.task.id!r}{kind}, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Played:
    """An episode that was played to its end."""

    start: Start
    messages: tuple[Message, ...]
    """The whole conversation, the prompt first."""
    steps: tuple[Step, ...]

    @property
    def reward(self) -> float:
        return sum(step.reward for step in self.steps)

    @property
    def end(self) -> Step:
        return self.steps[-1]

    @property
    def won(self) -> bool:
        return self.end.outcome is Outcome.correct

    @property
    def said(self) -> tuple[Message, ...]:
        """The player's own messages."""
        return tuple(message for message in self.messages[len(self.start.messages) :] if message.role == "assistant")

    @property
    def observations(self) -> tuple[Message, ...]:
        return tuple(message for message in self.messages[len(self.start.messages) :] if message.role != "assistant")

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        return tuple(call for message in self.said for call in message.tool_calls)

    @property
    def answer(self) -> str:
        """The text of the player's last message, empty where that called a tool."""
        last = self.said[-1]
        return "" if last.tool_calls else last.text


@dataclass
class Bench:
    """An env under validation. `reference` is an id or `path.py:name`; `tasks` is how many cases gold is to play."""

    reference: str
    args: Mapping[str, Any] = field(default_factory=dict)
    tasks: int = 24
    seed: int = 0

    def make(self) -> Any:
        """The env, made anew."""
        return make_env(self.reference, args=self.args)

    @cached_property
    def env(self) -> Any:
        return self.make()

    @cached_property
    def heavy(self) -> bool:
        """Whether episodes have sandboxes, so that few of them are played."""
        names = {schema["function"]["name"] for schema in self.schemas}
        return bool(getattr(self.env, "sandbox", None)) or bool(names & SANDBOXED)

    @cached_property
    def schemas(self) -> tuple[Mapping[str, Any], ...]:
        """The tools, as the first case shows them."""
        first = sample(self.env, 1, self.seed)[0]
        tools = run(self.env, self.env.areset(seed=first.seed, options=first.options)).tools
        run(self.env, self.env.aclose())
        return tuple(tools)

    @cached_property
    def cases(self) -> list[Case]:
        """The cases that gold plays: every kind at least once, and in each split where episodes cost little."""
        count = max(2, self.tasks // 6) if self.heavy else self.tasks
        return sample(self.env, count, self.seed, per_kind=1 if self.heavy else PER_KIND, each_split=not self.heavy)

    @cached_property
    def few(self) -> list[Case]:
        """The cases that the many cheap players play: of every kind, where episodes cost little."""
        kinds = {case.task.kind for case in self.cases}
        if self.heavy:
            return self.cases[: max(2, self.tasks // 12)]
        return self.cases[: max(self.tasks // 3, PER_KIND * len(kinds))]

    @cached_property
    def gold(self) -> dict[Case, Played | None]:
        """How gold plays the cases; None where there is no gold player. Raises what the env raises."""
        return {case: self._gold(case) for case in self.cases}

    def _gold(self, case: Case) -> Played | None:
        policy = self.env.expert(case.task, case.seed, "gold")
        return None if policy is None else self.play(policy, case)

    @cached_property
    def golds(self) -> dict[Case, Played | None]:
        """As `gold`, None also where gold cannot play: what the other checks build on."""
        try:
            return self.gold
        except Exception:  # the check of gold itself tells of it
            return dict.fromkeys(self.cases)

    def answer(self, case: Case) -> str:
        """The right answer in words: gold's last message, or the task's own answer; empty where neither is text."""
        played = self.golds[case]
        if played is not None:
            return played.answer
        plain = isinstance(case.task.answer, str | int | float) and not isinstance(case.task.answer, bool)
        return str(case.task.answer) if plain else ""

    def others(self, case: Case) -> list[str]:
        """Right answers of other cases, which are wrong here."""
        own = self.answer(case)
        found = dict.fromkeys(self.answer(other) for other in self.cases if other is not case)
        return [answer for answer in found if answer and answer.strip() != own.strip()]

    def play(self, policy: Policy, case: Case, env: Any = None) -> Played:
        """An episode to its end; raises what the env raises."""
        env = self.env if env is None else env
        try:
            start = run(env, env.areset(seed=case.seed, options=case.options))
            messages: list[Message] = list(start.messages)
            steps: list[Step] = []
            while not steps or not steps[-1].done:
                if len(steps) >= LONGEST:
                    steps.append(run(env, env.finish(StopReason.max_turns)))
                    break
                message = policy(messages)
                messages.append(message)
                steps.append(run(env, env.astep(message)))
                messages += steps[-1].messages
        except BaseException:
            run(env, env.aclose())
            raise
        return Played(start, tuple(messages), tuple(steps))

    def close(self) -> None:
        if "env" in self.__dict__:
            run(self.env, self.env.aclose())


def run(env: Any, coroutine: Any) -> Any:
    """Run a coroutine of an env from ordinary code: on one background loop, whoever calls."""
    return env._drive(coroutine) if hasattr(env, "_drive") else drive_on_loop(coroutine)


def sample(env: Any, count: int, seed: int, *, per_kind: int = 1, each_split: bool = True) -> list[Case]:
    """At least `count` cases, evenly over splits and kinds: as far as there are tasks `per_kind` of each kind, and
    (`each_split`) each kind in every split."""
    known: dict[str, dict[str, list[tuple[str, int, Task]]]] = {}
    for split in SPLITS:
        tasks: Sequence[Task] = env.tasks(split)
        for index in range(min(len(tasks), SCANNED)):
            task = tasks[index]
            known.setdefault(task.kind, {}).setdefault(split, []).append((split, index, task))
    # of neighbouring kinds another split each comes first
    by_kind = [list(splits.values())[:: -1 if i % 2 else 1] for i, splits in enumerate(known.values())]
    first, others = [row[0] for row in by_kind], [found for row in by_kind for found in row[1:]]
    queues = [_spread(found, max(count, per_kind)) for found in (*first, *others)]
    turns = [item for row in zip_longest(*queues) for item in row if item is not None]
    chosen = turns[: max(count, per_kind * len(first), len(queues) if each_split else 0)]
    return [Case(split, index, seed + i, task) for i, (split, index, task) in enumerate(chosen)]


def _spread(items: list[T], count: int) -> list[T]:
    """`count` of the items at even distances, the first one first."""
    return items if len(items) <= count else [items[i * len(items) // count] for i in range(count)]


def judged(check: Callable[[Bench], Any], bench: Bench) -> tuple[Any, str]:
    """(what a check finds, "") or (None, what it raised in a line)."""
    try:
        return check(bench), ""
    except SandboxUnavailable:  # says nothing of the env: the user can mend it
        raise
    except Exception as e:  # the env's own code may raise anything, and that is what is being looked for
        at = traceback.extract_tb(e.__traceback__)[-1]
        return None, f"{type(e).__name__}: {e} ({at.filename.rpartition('/')[2]}, line {at.lineno})"
