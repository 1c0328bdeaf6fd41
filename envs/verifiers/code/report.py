"""What grading a program found."""

from __future__ import annotations

from dataclasses import dataclass

from agentgym.types import Outcome


@dataclass(frozen=True, slots=True)
class CodeReport:
    """`outcome` is correct where every test passed; `told` says for each that ran what went wrong, "" for a pass."""

    outcome: Outcome
    passed: int = 0
    total: int = 0
    told: tuple[str, ...] = ()

    @property
    def detail(self) -> str:
        """The first thing that went wrong."""
        return next((text for text in self.told if text), "")
