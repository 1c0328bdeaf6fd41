"""`rescore`: rewards of stored episodes by today's reward, without a model.

From the messages alone where the reward asks for nothing else; it is given an episode whose state, generator and
sandbox refuse to be looked at. Where it looks, the stored messages are played again in the env with the stored seed and
task, and the env has to answer as it did. What can be scored in neither way is unscored, with its reason, and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agentgym.envs.rescore import by_messages, by_replay
from agentgym.envs.rescore.stored import find
from agentgym.envs.rescore.verdict import NeedsReplay, NotRescored, Verdict
from agentgym.envs.tool_env import ToolEnv
from agentgym.errors import EpisodeFault
from agentgym.rollout.record import from_row
from agentgym.types import Outcome, Trajectory

Row = Mapping[str, Any]
Way = Literal["auto", "messages", "replay"]


@dataclass
class Tally:
    """What became of the rows. `mean_before` and `mean_after` are over the rows that were scored both times."""

    rows: int = 0
    by: Counter[str] = field(default_factory=Counter)
    up: int = 0
    down: int = 0
    turned: int = 0
    """Rows whose outcome changed."""
    newly: int = 0
    """Rows that were unscored and now are scored."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Why rows were not rescored."""
    before: float = 0.0
    after: float = 0.0

    def add(self, old: Trajectory, verdict: Verdict) -> None:
        self.by[verdict.by] += 1
        if old.reward is None:
            self.newly += 1
            return
        self.before += old.reward
        self.after += verdict.reward
        self.up += verdict.reward > old.reward + 1e-9
        self.down += verdict.reward < old.reward - 1e-9
        self.turned += verdict.outcome is not old.outcome

    def to_json(self) -> dict[str, Any]:
        rescored = sum(self.by.values())
        both = rescored - self.newly
        return {
            "rows": self.rows,
            "rescored": rescored,
            "by": dict(self.by),
            "changed": self.up + self.down,
            "up": self.up,
            "down": self.down,
            "outcome_changed": self.turned,
            "newly_scored": self.newly,
            "mean_before": self.before / both if both else None,
            "mean_after": self.after / both if both else None,
            "not_rescored": sum(self.reasons.values()),
            "reasons": dict(self.reasons.most_common()),
        }


def rescore(
    rows: Iterable[Row], make_env: Callable[[str], Any], tally: Tally, *, how: Way = "auto"
) -> Iterator[dict[str, Any]]:
    """Each row with its new reward, components and outcome, and under `rescored` how (`by`) and what it `was`.

    `make_env(env_id)` gives the env; it is asked once an id. A row that cannot be rescored comes out unscored, with
    the reason as its `error`. Raises `ValueError` for a row that is no trajectory.
    """
    envs: dict[str, Any] = {}
    for row in rows:
        tally.rows += 1
        old = from_row(row)
        if old.env_id not in envs:
            envs[old.env_id] = make_env(old.env_id)
        try:
            verdict = _verdict(envs[old.env_id], old, how)
        except NotRescored as e:
            tally.reasons[str(e)] += 1
            yield _unscored(row, str(e))
        else:
            tally.add(old, verdict)
            yield _rescored(row, verdict)


def _verdict(env: Any, trajectory: Trajectory, how: Way) -> Verdict:
    stored = find(env, trajectory)
    if how == "replay" or not isinstance(env, ToolEnv):
        return by_replay.score(env, stored)
    try:
        return by_messages.score(env, stored)
    except EpisodeFault as e:
        raise NotRescored(f"the reward failed ({e.kind}: {e})") from None
    except NeedsReplay:
        if how == "messages":
            raise NotRescored("the messages alone do not tell its reward") from None
        return by_replay.score(env, stored)


def _rescored(row: Row, verdict: Verdict) -> dict[str, Any]:
    turns = [{**turn, "reward": paid} for turn, paid in zip(row["turns"], verdict.turns, strict=False)]
    was = {name: row.get(name) for name in ("reward", "outcome", "components", "error")}
    return {
        **row,
        "turns": turns,
        "reward": verdict.reward,
        "components": dict(verdict.components),
        "outcome": verdict.outcome.value,
        "error": None,
        "rescored": {"by": verdict.by, "was": was},
    }


def _unscored(row: Row, reason: str) -> dict[str, Any]:
    was = {name: row.get(name) for name in ("reward", "outcome", "components", "error")}
    error = f"not rescored: {reason}"
    return {
        **row,
        "reward": None,
        "components": {},
        "outcome": Outcome.unscored.value,
        "error": error,
        "rescored": {"by": None, "was": was},
    }


__all__ = ["Tally", "Verdict", "rescore"]
