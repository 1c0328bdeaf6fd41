"""Scores a stored episode from its messages alone, without an episode: where the reward asks for nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from agentgym.envs.rescore.stored import Stored
from agentgym.envs.rescore.verdict import NeedsReplay, Verdict
from agentgym.envs.tool_env import ToolEnv
from agentgym.protocols import Sandbox
from agentgym.tools.driving import drive
from agentgym.tools.episode import Episode, ToolResult
from agentgym.types import Message, Outcome, ToolCall

OWN = ("tool_calls", "tool_errors", "turns", "rewrites")
"""Metrics of a trajectory that are not the episode's."""


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise NeedsReplay


class _NoState(dict[str, Any]):
    """An episode's state that nobody knows: whoever looks into it, or writes to it, is refused."""

    __getitem__ = __setitem__ = __contains__ = __iter__ = __len__ = __bool__ = __eq__ = __ne__ = _refuse
    get = setdefault = pop = update = keys = values = items = copy = _refuse


class _NoCalls(list[ToolResult]):
    """Calls of which nobody knows which failed."""

    __getitem__ = __iter__ = __len__ = __bool__ = __contains__ = __reversed__ = __eq__ = __ne__ = _refuse


class _NoGenerator:
    """A generator whose place in its sequence is not known."""

    __getattr__ = _refuse


class _StoredEpisode(Episode):
    """An episode that is over: it has no sandbox any more."""

    __slots__ = ()

    async def sandbox(self) -> Sandbox:
        raise NeedsReplay


def score(env: ToolEnv, stored: Stored) -> Verdict:
    """Raises `NeedsReplay` where the messages do not say enough, `VerifierFault` where the reward fails."""
    own = type(env)
    if own.astep is not ToolEnv.astep or own._end is not ToolEnv._end or env.rubric.has_turns or not stored.same_prompt:
        raise NeedsReplay
    episode = _episode(env, stored)
    values = drive(env.rubric.score_end(stored.task, episode.answer, episode))
    total = env.rubric.total(values)
    outcome = Outcome.correct if total >= env.success - 1e-9 else Outcome.incorrect
    turns = [0.0] * max(0, len(stored.trajectory.turns) - 1) + [total]
    return Verdict("messages", tuple(turns), values, outcome)


def _episode(env: ToolEnv, stored: Stored) -> Episode:
    task, trajectory = stored.task, stored.trajectory
    generator: Any = _NoGenerator()
    episode = _StoredEpisode(task, generator, [*trajectory.prompt, *stored.messages], env.toolset.schemas)
    episode.state = _NoState()
    episode.turns = sum(message.role == "assistant" for message in stored.messages)
    episode.calls = _calls(stored)
    episode.tags = list(trajectory.tags)
    episode.metrics = {name: value for name, value in trajectory.metrics.items() if name not in OWN}
    if env.sandbox or "sandbox" in task.metadata:
        episode.sandbox_settings = {**env.sandbox, **task.metadata.get("sandbox", {})}
    return episode


def _calls(stored: Stored) -> list[ToolResult]:
    pairs = list(_answered(stored.messages))
    failed = stored.trajectory.metrics.get("tool_errors", -1)
    if pairs and failed not in (0, len(pairs)):
        return _NoCalls()
    return [ToolResult(call, answer.text, bool(failed)) for call, answer in pairs]


def _answered(messages: Sequence[Message]) -> list[tuple[ToolCall, Message]]:
    found: list[tuple[ToolCall, Message]] = []
    asked: list[ToolCall] = []
    for message in messages:
        if message.role == "assistant":
            asked = list(message.tool_calls)
        elif message.role == "tool" and asked:
            found.append((asked.pop(0), message))
    return found
