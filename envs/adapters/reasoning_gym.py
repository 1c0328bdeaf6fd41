"""`agentgym/reasoning_gym.NAME-v0`: the generators of reasoning-gym as environments that pay for right answers only."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
import json
import re
import sys
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import Any

from agentgym.adapters import reasoning_gym_names
from agentgym.envs.adapters.expressions import plain_data, small_arithmetic
from agentgym.envs.script import say
from agentgym.envs.tasks import TaskSet, split_tasks
from agentgym.envs.tool_env import ToolEnv
from agentgym.errors import ConfigError, VerifierFault
from agentgym.protocols import Policy
from agentgym.tools.driving import checkpoint
from agentgym.tools.episode import Episode
from agentgym.types import Task

SYSTEM = "Think as long as you need. End with the final answer alone between <answer> and </answer>."
MAX_ANSWER = 20_000
FULL = 0.999
_BOOLEANS = ("true", "false", "yes", "no")
_YES_OR_NO = ("course_schedule",)
_SLOW = ("futoshiki", "intermediate_integration", "knight_swap", "puzzle24", "sokoban", "zebra_puzzles")
SIZE, SLOW_SIZE = 120, 12


def _given_numbers(said: str, entry: Mapping[str, Any]) -> bool:
    return sorted(map(int, re.findall(r"\d+", said))) == sorted(entry["metadata"]["numbers"])


def _no_premise(said: str, entry: Mapping[str, Any]) -> bool:
    return _bare(said) not in map(_bare, entry["metadata"]["premises"])


def _bare(formula: str) -> str:
    return re.sub(r"[\s()]", "", formula)


_ALSO = {
    "puzzle24": _given_numbers,  # its check takes any four numbers for those that were given
    "propositional_logic": _no_premise,  # its check takes a premise, said again, for a conclusion
}
_TWO_VALUED = "of two possible answers each is right on half of the tasks"
_EVALUATORS = {
    r"(?<![\w.])(?:eval|exec)\(": plain_data,
    r"\b(?:parse_expr|sympify)\(": small_arithmetic,
}
_RUN_THEIR_OWN = ("basic_arithmetic", "bitwise_arithmetic", "codeio", "number_sorting", "propositional_logic")
"""Evaluate the questions that they make, never an answer; one has a parser of its own, which is called like sympy's."""


class ReasoningGymEnv(ToolEnv):
    """A question that a program made, and an answer that a program can check.

    ## Description
    The questions are those of one of reasoning-gym's generators (`name`), the same for the same `data_seed`.

    ## Tools
    None by itself; `tools=["python"]` gives some.

    ## Starting state
    A system message that says how to answer, and the question.

    ## Reward
    `reward`: 1 if the generator's own check gives full marks to what stands in the last `<answer>...</answer>` of the
    agent's own last message, else 0. `score` (a metric) is that check's number, which pays some for answers that
    merely look alike; `answered` (a metric): whether there was an answer.
    Where a generator's check evaluates the answer, the answer is read first: one that is more than plain data (for
    `eval`) or small arithmetic (for sympy) is paid nothing.

    ## Episode end
    Terminated by an answer, truncated after `max_turns` = 8 messages.

    ## Tasks
    `size` questions (fewer where a generator has not so many), a sixth of them held out by hash.

    ## Arguments
    name: the generator. size: questions to make, 120 by default (12 where one takes a tenth of a second
    or more). data_seed: the generator's seed. config: the generator's own
    settings, which make it easier or harder.

    ## Versions
    v0: first.
    """

    weights = {"answered": 0.0, "score": 0.0}  # noqa: RUF012 - read-only
    system = SYSTEM
    max_turns = 8
    holdout = 1 / 6

    def __init__(
        self,
        *args: Any,
        name: str = "chain_sum",
        size: int = 0,
        data_seed: int = 0,
        config: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        size = size or (SLOW_SIZE if name in _SLOW else SIZE)
        if size < 2:
            raise ConfigError(f"reasoning_gym: size = {size}: must be 2 or more")
        self.name, self.size, self.data_seed = name, size, data_seed
        if name in _YES_OR_NO:
            self.exempt = {"dump": _TWO_VALUED, **self.exempt}
        self.config = json.dumps(dict(config or {}), sort_keys=True)  # a key of caches

    def make_tasks(self, split: str) -> TaskSet:
        return split_tasks(_questions(self.name, self.size, self.data_seed, self.config), split, self.holdout)

    async def reward(self, task: Task, answer: str, episode: Episode) -> dict[str, float]:
        said = final_answer(answer)
        if said is None:
            return {"reward": 0.0, "score": 0.0, "answered": 0.0}
        score = await self._score(task, said)
        return {"reward": float(score >= FULL), "score": score, "answered": 1.0}

    async def _score(self, task: Task, said: str) -> float:
        gold = str(task.answer).strip()
        if said == gold and task.answer is not None:
            return 1.0
        if gold.lower() in _BOOLEANS:  # some checks ask for the truth of the text itself: "False" is true
            return float(said.lower() == gold.lower())
        made = _generator(self.name, self.size, self.data_seed, self.config)
        if not all(harmless(said) for harmless in _guards(self.name)):
            return 0.0
        entry = task.metadata["entry"]
        if self.name in _ALSO and not _ALSO[self.name](said, entry):
            return 0.0
        await checkpoint()
        try:
            return float(await asyncio.to_thread(made.score_answer, said, entry))
        except Exception as e:
            # garbage makes some generators raise; where the right answer does too, the fault is not the answer's
            try:
                made.score_answer(task.answer, entry)
            except Exception:
                raise VerifierFault(f"reasoning_gym.{self.name}: {type(e).__name__}: {e}") from e
            return 0.0

    def expert(self, task: Task, seed: int, style: str = "gold") -> Policy | None:
        """Gives the generator's own answer; None where it has none."""
        if task.answer is None:
            return None
        return lambda conversation: say(f"<answer>{task.answer}</answer>")


def final_answer(text: str) -> str | None:
    """What stands in the last `<answer>...</answer>`; None where there is none, or too much."""
    before, closed, _ = text.rpartition("</answer>")
    _, opened, said = before.rpartition("<answer>")
    said = said.strip()
    return said if closed and opened and said and len(said) <= MAX_ANSWER else None


@lru_cache(maxsize=256)
def _generator(name: str, size: int, seed: int, config: str) -> Any:
    try:
        import reasoning_gym
    except ImportError:
        raise ConfigError("reasoning-gym is not installed: pip install 'agentgym-train[adapters]'") from None
    if name not in reasoning_gym_names():
        raise ConfigError(f"reasoning_gym: no generator {name!r} (there are: {', '.join(reasoning_gym_names())})")
    try:
        return reasoning_gym.create_dataset(name, size=size, seed=seed, **json.loads(config))
    except (TypeError, AssertionError, ValueError) as e:
        raise ConfigError(f"reasoning_gym.{name}: config = {config}: {e}") from None


@lru_cache(maxsize=256)
def _questions(name: str, size: int, seed: int, config: str) -> tuple[Task, ...]:
    made = _generator(name, size, seed, config)
    with contextlib.redirect_stdout(io.StringIO()):  # some report their progress
        entries = [made[i] for i in range(size)]
    tasks: dict[str, Task] = {}
    for i, entry in enumerate(entries):
        question, answer = str(entry["question"]), entry["answer"]
        if question not in tasks:  # no question is in both splits, or twice in one
            tasks[question] = Task(str(i), question, answer, "", {"entry": entry})
    return tuple(tasks.values())


@cache
def _guards(name: str) -> tuple[Callable[[str], bool], ...]:
    """What an answer has to be before a generator's check may see it: nothing, unless its file evaluates texts."""
    if name in _RUN_THEIR_OWN:
        return ()
    from reasoning_gym.factory import DATASETS

    source = inspect.getsource(sys.modules[DATASETS[name][0].__module__])
    return tuple(guard for sign, guard in _EVALUATORS.items() if re.search(sign, source))
