"""Scores a stored episode by playing its messages again in the env, with its own seed and task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentgym.envs.rescore.stored import Stored
from agentgym.envs.rescore.verdict import NotRescored, Verdict
from agentgym.errors import EpisodeFault
from agentgym.protocols import Step
from agentgym.tools.driving import drive_on_loop
from agentgym.types import Message, Outcome


def score(env: Any, stored: Stored) -> Verdict:
    """Raises `NotRescored` where the env answers otherwise than it did, or cannot be played."""
    try:
        steps = drive_on_loop(_play(env, stored))
    except EpisodeFault as e:
        raise NotRescored(f"it could not be played again ({e.kind}: {e})") from None
    end: Step = steps[-1]
    if end.outcome is Outcome.unscored:
        raise NotRescored("the env ended the episode without scoring it")
    rewards = [step.reward for step in steps]
    spoken = max(1, len(stored.trajectory.turns))
    turns = [*rewards[: spoken - 1], sum(rewards[spoken - 1 :])]
    return Verdict("replay", (*turns, *[0.0] * (spoken - len(turns))), dict(end.components), end.outcome)


async def _play(env: Any, stored: Stored) -> list[Step]:
    trajectory = stored.trajectory
    try:
        options = {"task_id": stored.task.id, "split": stored.split}
        start = await env.areset(seed=trajectory.seed, options=options)
        if _plain(start.messages) != _plain(trajectory.prompt):
            raise NotRescored("played again, it begins with another prompt")
        steps: list[Step] = []
        left = list(stored.messages)
        while left and not (steps and steps[-1].done):
            step = await env.astep(left.pop(0))
            steps.append(step)
            heard, left = left[: len(step.messages)], left[len(step.messages) :]
            if _plain(heard) != _plain(step.messages):
                raise NotRescored("played again, the env answers otherwise")
        if left:
            raise NotRescored("played again, it ends before its last message")
        if not (steps and steps[-1].done):
            steps.append(await env.finish(trajectory.stop_reason))
        return steps
    finally:
        await env.aclose()


def _plain(messages: Sequence[Message]) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in messages]
