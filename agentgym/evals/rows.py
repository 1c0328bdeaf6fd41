"""What an evaluation records of an episode: one flat row, enough for every figure of its report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from agentgym.types import Outcome, Trajectory

Key: TypeAlias = tuple[str, int, int]
"""Which episode: the name of its environment, the task's place in its split, and the sample."""


@dataclass(frozen=True, slots=True)
class EvalRow:
    """One episode. `reward` is None exactly when it is unscored; then `error` says why."""

    env: str
    task: int
    sample: int
    task_id: str
    seed: int
    outcome: Outcome
    reward: float | None
    stop_reason: str
    turns: int
    tokens: int | None
    """Sampled; None where an endpoint did not say."""
    tool_calls: int
    tool_errors: int
    seconds: float
    kind: str = ""
    tags: tuple[str, ...] = ()
    error: str | None = None
    prompt: str = ""
    """A hash of the prompt, by which two evaluations know that they played the same task; empty if it never began."""

    @property
    def key(self) -> Key:
        return self.env, self.task, self.sample

    @property
    def scored(self) -> bool:
        return self.outcome is not Outcome.unscored

    @property
    def won(self) -> bool:
        return self.outcome is Outcome.correct

    @property
    def fault(self) -> str:
        """Which boundary failed, for an unscored episode: `engine_error`, `env_error`, ..."""
        return (self.error or "unknown").partition(":")[0].strip()

    def to_json(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def row_of(trajectory: Trajectory, task: int) -> EvalRow:
    """The row of an episode that was played; `task` is its task's place in the split."""
    t = trajectory
    completions = [turn.completion for turn in t.turns]
    unknown = any(c.count is None and not len(c.ids) and c.finish_reason != "length" for c in completions)
    return EvalRow(
        env=t.env_id,
        task=task,
        sample=t.episode,
        task_id=t.task_id,
        seed=t.seed,
        outcome=t.outcome,
        reward=t.reward,
        stop_reason=t.stop_reason.value,
        turns=len(t.turns),
        tokens=None if unknown else t.sampled_tokens,
        tool_calls=int(t.metrics.get("tool_calls", sum(len(turn.message.tool_calls) for turn in t.turns))),
        tool_errors=int(t.metrics.get("tool_errors", 0)),
        seconds=round(float(t.seconds.get("wall", 0.0)), 3),
        kind=t.kind,
        tags=t.tags,
        error=t.error,
        prompt=_digest(t),
    )


def row_from_json(row: Mapping[str, Any]) -> EvalRow:
    """The row of a line of episodes.jsonl; raises `ValueError` naming what is missing or wrong."""
    known = {field.name for field in fields(EvalRow)}
    try:
        own = {key: value for key, value in row.items() if key in known}
        made = EvalRow(**{**own, "tags": tuple(row["tags"]), "outcome": Outcome(row["outcome"])})
        places = isinstance(made.env, str), isinstance(made.task, int), isinstance(made.sample, int)
    except (TypeError, KeyError) as e:
        raise ValueError(f"not an episode of an evaluation: {e}") from None
    if not all(places):
        raise ValueError("not an episode of an evaluation: env, task and sample must be a text and two numbers")
    return made


def _digest(trajectory: Trajectory) -> str:
    if not trajectory.prompt:
        return ""
    text = json.dumps([message.to_openai() for message in trajectory.prompt])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
