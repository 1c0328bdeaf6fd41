"""The score of an episode's state: how near it is to its goal, as credit and the grader `progress` ask for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from agentgym.errors import ConfigError, VerifierFault, boundary
from agentgym.tools.episode import Episode
from agentgym.types import Message, Task

if TYPE_CHECKING:
    from agentgym.envs.tool_env import ToolEnv

StateScore: TypeAlias = Callable[[Episode], float]
"""episode -> 0 to 1; raises `VerifierFault` where it cannot be told."""
SCORES = ("env", "consistency")


def state_score(name: str, env: ToolEnv) -> StateScore:
    """The score of that name for an env's episodes. Raises `ConfigError` where the env has none."""
    if name == "consistency":
        return spoken_consistency
    if name != "env":
        raise ConfigError(f"unknown score {name!r}: there are {', '.join(SCORES)}")
    return own_progress(env)


def own_progress(env: ToolEnv) -> StateScore:
    """What the env's own `progress` says. Raises `ConfigError` where its class has none."""
    from agentgym.envs.tool_env import ToolEnv

    if type(env).progress is ToolEnv.progress:
        raise ConfigError(
            f"{type(env).__name__} reports no progress of its episodes: write progress(self, episode) -> 0 to 1 in its "
            "class, or score states by credit.score = 'consistency' (what was said had been shown) or 'gold' (the "
            "likelihood of the task's answer)"
        )
    told = env.progress  # of the episode that it is given: any copy of the env may ask

    def score(episode: Episode) -> float:
        with boundary(VerifierFault, "progress"):
            value = told(episode)
            if value is None or not math.isfinite(value):
                raise VerifierFault(f"progress: {value!r} is not a finite number")
        return float(value)

    return score


def spoken_consistency(episode: Episode) -> float:
    """How much of what the agent has said so far it had been shown, or calculated, without contradicting itself: the
    mean of `check_consistency` over its messages with facts, the arguments of its calls among these; 1 before any."""
    from agentgym.envs.verifiers.consistency import check_consistency
    from agentgym.envs.verifiers.quantities import read_facts

    shares = []
    for i, message in enumerate(episode.messages):
        if message.role != "assistant":
            continue
        said = _said(message)
        if not any(read_facts(said)):
            continue
        with boundary(VerifierFault, "consistency"):
            verdict = check_consistency([*episode.messages[:i], Message("assistant", message.text)], said)
        shares.append(verdict.value)
    return sum(shares) / len(shares) if shares else 1.0


def _said(message: Message) -> str:
    arguments = [str(value) for call in message.tool_calls for value in call.arguments.values()]
    return "\n".join([message.text, *arguments])


class Progress:
    """A grader per turn: what the state's score has gained by the agent's last message. Over an episode that sums to
    the last state's score less the first one's."""

    def __init__(self, env: ToolEnv):
        self._score = own_progress(env)

    def begin(self, episode: Episode) -> None:
        """Note the score that an episode begins with."""
        episode.score = self._score(episode)

    def __call__(self, task: Task, text: str, episode: Episode) -> float:
        before = episode.score or 0.0
        episode.score = self._score(episode)
        return episode.score - before
