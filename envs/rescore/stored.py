"""A stored episode: its trajectory and the task that it played."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agentgym.envs.rescore.verdict import NotRescored
from agentgym.envs.tasks import SPLITS
from agentgym.errors import VerifierFault
from agentgym.types import Message, Outcome, StopReason, Task, Trajectory

CUT = (StopReason.max_tokens, StopReason.context_overflow, StopReason.timeout)
"""Ends at which the model's last message may never have reached the env."""


@dataclass(frozen=True, slots=True)
class Stored:
    """`messages` follow the prompt, without a last message that was cut off; `same_prompt`: the task's own prompt is
    what was played, so that the setup of the episode has added nothing."""

    trajectory: Trajectory
    task: Task
    split: str
    messages: tuple[Message, ...]
    same_prompt: bool


def find(env: Any, trajectory: Trajectory) -> Stored:
    """The stored episode with its task of `env`; raises `NotRescored`."""
    _check_ended(trajectory)
    found = [(split, task) for split in SPLITS if (task := _task(env, split, trajectory.task_id)) is not None]
    if not found:
        raise NotRescored("the env has no task of that id")
    same = [(split, task) for split, task in found if _opens(env, task) == _plain(trajectory.prompt)]
    split, task = (same or found)[0]
    spoken = tuple(message for turn in trajectory.turns for message in (turn.message, *turn.observations))
    cut = trajectory.stop_reason in CUT and bool(spoken) and spoken[-1].role == "assistant"
    return Stored(trajectory, task, split, spoken[:-1] if cut else spoken, bool(same))


def _check_ended(trajectory: Trajectory) -> None:
    if trajectory.outcome is not Outcome.unscored:
        return
    fault = (trajectory.error or "unknown").partition(":")[0].strip()
    if fault != VerifierFault.kind:
        raise NotRescored(f"it was never played to its end ({fault})")


def _task(env: Any, split: str, task_id: str) -> Task | None:
    tasks: Sequence[Task] = env.tasks(split)
    if hasattr(tasks, "by_id"):
        try:
            found: Task = tasks.by_id(task_id)
        except Exception:  # every kind of task set says in its own way that there is none
            return None
        return found
    return next((task for task in tasks if task.id == task_id), None)


def _opens(env: Any, task: Task) -> list[tuple[str, str]]:
    prompt = (Message("user", task.prompt),) if isinstance(task.prompt, str) else task.prompt
    system = getattr(env, "system", "")
    if system and not any(message.role == "system" for message in prompt):
        prompt = (Message("system", system), *prompt)
    return _plain(prompt)


def _plain(messages: Sequence[Message]) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in messages]
