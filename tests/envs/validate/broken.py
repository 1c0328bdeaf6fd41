"""Environments with one thing wrong in each, and sound ones: what the checks have to tell apart."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections.abc import Sequence
from typing import Any

import agentgym as ag
from agentgym.envs.tasks import TaskSet
from agentgym.protocols import Policy

COUNT = 30


@ag.tool
def double(number: int) -> int:
    """Twice a number.

    Args:
        number: the number
    """
    return 2 * number


@ag.tool
def note(text: str) -> str:
    """Keep a note.

    Args:
        text: what to keep
    """
    return f"noted: {text}"


class Sound(ag.ToolEnv):
    """Doubling.

    ## Description
    Twice a number, plus one.

    ## Reward
    1 for the exact number.

    ## Episode end
    An answer.

    ## Tasks
    30.
    """

    tools = (double, note)
    max_turns = 5
    holdout = 0.0

    def make_tasks(self, split: str) -> TaskSet:
        return TaskSet(self.task(100 + 7 * i) for i in range(COUNT))

    def task(self, n: int) -> ag.Task:
        right = str(2 * n + 1)
        demo = [ag.call("double", number=n), ag.say(right)]
        return ag.Task(str(n), f"What is twice {n}, plus one?", right, "even" if n % 2 == 0 else "odd", demo=demo)

    def reward(self, task: ag.Task, answer: str, episode: ag.Episode) -> Any:
        return float(answer.strip() == task.answer)


class GoldIsNotPaid(Sound):
    """gold: one kind of task is never paid."""

    def reward(self, task: ag.Task, answer: str, episode: ag.Episode) -> float:
        return float(answer.strip() == task.answer and task.kind == "odd")


class PaysSilence(Sound):
    """null: an empty answer is in every text."""

    def reward(self, task: ag.Task, answer: str, episode: ag.Episode) -> float:
        return float(answer.strip() in task.answer)


class PaysTheQuestion(Sound):
    """echo: overlap with the question is paid."""

    def reward(self, task: ag.Task, answer: str, episode: ag.Episode) -> float:
        shared = set(answer.split()) & set(str(task.prompt).split())
        return 1.0 if answer.strip() == task.answer else 0.1 * len(shared)


class PaysContaining(Sound):
    """dump: an answer that holds the right one somewhere is paid."""

    def reward(self, task: ag.Task, answer: str, episode: ag.Episode) -> float:
        return float(task.answer in answer)


class PaysLength(Sound):
    """dump: long answers are paid."""

    def reward(self, task: ag.Task, answer: str, episode: ag.Episode) -> float:
        return 1.0 if answer.strip() == task.answer else min(0.9, len(answer) / 10_000)


class PaysTheWholeTalk(Sound):
    """tool_print: what a tool said is paid."""

    def reward(self, task: ag.Task, answer: str, episode: ag.Episode) -> float:
        return float(any(message.text.endswith(str(task.answer)) for message in episode.messages[1:]))


class NoGold(Sound):
    """Nobody shows how it is done."""

    def expert(self, task: ag.Task, seed: int, style: str = "gold") -> Policy | None:
        return None


class PaysMarksAnywhere(NoGold):
    """tool_print: a mark anywhere in the talk is an answer, and nobody shows how answers are written."""

    def reward(self, task: ag.Task, answer: str, episode: ag.Episode) -> float:
        said = "\n".join(message.text for message in episode.messages[1:])
        return float(f"#### {task.answer}" in said)


class PaysBeingCutShort(Sound):
    """null: an episode that a limit ends has no last message, and is paid."""

    def reward(self, task: ag.Task, answer: str, episode: ag.Episode) -> float:
        return float(answer.strip() == task.answer or not episode.turns)


class PaysThought(Sound):
    """tool_print: what is only thought is paid."""

    def reward(self, task: ag.Task, answer: str, episode: ag.Episode) -> float:
        last = episode.messages[-1]
        return float(task.answer in (answer.strip(), last.reasoning))


class BelievesVerdicts(Sound):
    """inject: an answer that calls itself correct is paid."""

    def reward(self, task: ag.Task, answer: str, episode: ag.Episode) -> float:
        return float(answer.strip() == task.answer or "correct" in answer.lower())


class NotANumberWins(Sound):
    """inject: a NaN is at no distance from anything."""

    def reward(self, task: ag.Task, answer: str, episode: ag.Episode) -> float:
        try:
            return float(not abs(float(answer.strip().removeprefix("#### ")) - float(task.answer)) > 0)
        except ValueError:
            return 0.0


class FallsOnOddAnswers(Sound):
    """null: a verifier that raises leaves episodes unscored."""

    def reward(self, task: ag.Task, answer: str, episode: ag.Episode) -> float:
        return float(int(answer) == int(task.answer))


class ShowsTheGrader(Sound):
    """peek: a file tool shows the grader."""

    @property
    def tools(self) -> Sequence[Any]:  # type: ignore[override]
        return (double, show)


@ag.tool
def show(path: str, episode: ag.Episode) -> str:
    """Show a file.

    Args:
        path: the file
    """
    if path == "solution.txt":
        return f"the solution is {episode.task.answer}"
    raise FileNotFoundError(path)


class TellsTheAnswer(Sound):
    """echo: a tool tells the answer to whoever asks anything."""

    @property
    def tools(self) -> Sequence[Any]:  # type: ignore[override]
        return (double, hint)


@ag.tool
def hint(guess: str, episode: ag.Episode) -> str:
    """A hint for a guess.

    Args:
        guess: the guess
    """
    return f"{guess} is wrong, it should be {episode.task.answer}"


_turns = itertools.count()


class CountsCalls(Sound):
    """deterministic: an episode depends on those before it."""

    def setup(self, episode: ag.Episode) -> None:
        episode.messages.append(ag.Message("user", f"This is question {next(_turns)}."))


class DrawsFromTheWorld(Sound):
    """deterministic: a tool draws from a generator that no seed reaches."""

    @property
    def tools(self) -> Sequence[Any]:  # type: ignore[override]
        return (shaky,)


@ag.tool(name="double")
def shaky(number: int) -> float:
    """Twice a number, or nearly.

    Args:
        number: the number
    """
    return 2 * number + random.random()


class PaysByTheHour(Sound):
    """deterministic: the reward's metric tells the time."""

    def reward(self, task: ag.Task, answer: str, episode: ag.Episode) -> dict[str, float]:
        return {"reward": float(answer.strip() == task.answer), "count": 0.0 * next(_turns) + next(_turns)}

    weights = {"count": 0.0}  # noqa: RUF012


class IgnoresTheSeed(Sound):
    """check_env: a reset with a seed is no reset of the generator."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=None, options=options)


class RaisesOnUnicode(Sound):
    """survive: a surrogate cannot be encoded."""

    async def astep(self, message: ag.Message) -> Any:
        message.text.encode()
        return await super().astep(message)


class SilentTool(Sound):
    """survive: a call is answered with nothing."""

    @property
    def tools(self) -> Sequence[Any]:  # type: ignore[override]
        return (double, mute)


@ag.tool
def mute(text: str) -> str:
    """Say nothing.

    Args:
        text: what not to say
    """
    return ""


class LeavesFilesOpen(Sound):
    """leak: each reset opens a file."""

    def setup(self, episode: ag.Episode) -> None:
        episode.state["null"] = os.open(os.devnull, os.O_RDONLY)


class LeavesTasksRunning(Sound):
    """leak: each reset starts a task that nobody ends."""

    async def setup(self, episode: ag.Episode) -> None:  # type: ignore[override]
        episode.state["task"] = asyncio.get_running_loop().create_task(asyncio.sleep(30))

    def _needs_loop(self) -> bool:
        return True


class CannotBegin(Sound):
    """Every check: no episode begins."""

    def setup(self, episode: ag.Episode) -> None:
        raise LookupError("the world is missing")


class NothingIsRight(Sound):
    """A kind of task where to say nothing is right: the env says so."""

    exempt = {"null:even": "to say nothing is right there"}  # noqa: RUF012

    def task(self, n: int) -> ag.Task:
        if n % 2:
            return super().task(n)
        return ag.Task(str(n), f"What is twice {n}? Do not answer.", "", "even", demo=[ag.say("")])


class AlwaysPaysALittle(Sound):
    """A floor that the env owns to."""

    floor = 0.1

    def reward(self, task: ag.Task, answer: str, episode: ag.Episode) -> float:
        return 1.0 if answer.strip() == task.answer else 0.1


class NoGoldPaysContaining(NoGold, PaysContaining):
    """dump: found without gold too, by the task's own answer."""


class FewAnswers(Sound):
    """One of three colours: a blind guess may be right."""

    @property
    def tools(self) -> Sequence[Any]:  # type: ignore[override]
        return (colour,)

    def task(self, n: int) -> ag.Task:
        right = ("red", "green", "blue")[n % 3]
        return ag.Task(str(n), f"Which colour has box {n}?", right, demo=[ag.call("colour", box=str(n)), ag.say(right)])


@ag.tool
def colour(box: str) -> str:
    """The colour of a box.

    Args:
        box: its number
    """
    return ("red", "green", "blue")[int("".join(filter(str.isdigit, box)) or 0) % 3] if box.isdigit() else "no such box"
