"""What a verifier says: a typed outcome, why, and how much of it was right."""

from __future__ import annotations

from dataclasses import dataclass

from agentgym.types import Outcome


@dataclass(frozen=True, slots=True)
class Verdict:
    """True when `correct`. A rubric takes it as a reward: its `value`, or no score at all where there is no verdict."""

    outcome: Outcome
    reason: str = ""
    """For people: what is missing or wrong; it may hold many lines."""
    score: float | None = None
    """How much was right, 0 to 1; None where it is all or nothing."""

    @property
    def value(self) -> float:
        return float(bool(self.outcome)) if self.score is None else self.score

    def __bool__(self) -> bool:
        return bool(self.outcome)


def correct(reason: str = "") -> Verdict:
    return Verdict(Outcome.correct, reason)


def incorrect(reason: str) -> Verdict:
    return Verdict(Outcome.incorrect, reason)


def unparsable(reason: str) -> Verdict:
    return Verdict(Outcome.unparsable, reason)
