"""Trajectories as group rewards see them."""

from __future__ import annotations

from typing import Any

import numpy as np

from agentgym.types import Completion, Message, Outcome, StopReason, Trajectory, Turn


def turn(message: Message, tokens: int = 1, *observations: str, number: int = 0) -> Turn:
    """A turn of so many sampled tokens that was answered by tools with `observations`."""
    ids = np.zeros(tokens, np.int32)
    answers = tuple(Message("tool", text) for text in observations)
    return Turn(number, None, ids[:0], Completion(ids, ids.astype(np.float32), ids), message, answers)


def trajectory(*said: Message | Turn, outcome: Outcome = Outcome.correct, **more: Any) -> Trajectory:
    """An episode of these turns; an unscored outcome has no reward."""
    turns = tuple(part if isinstance(part, Turn) else turn(part) for part in said)
    given = {
        "stop_reason": StopReason.completed,
        "reward": None if outcome is Outcome.unscored else float(bool(outcome)),
    }
    return Trajectory(
        id="t", task_id="t", env_id="e", turns=turns, prompt=(), components={}, outcome=outcome, **{**given, **more}
    )
