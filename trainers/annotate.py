"""What credit needs of the learner is noted on the trajectories before it: scores of states, values of tokens.

Noted, and not handed to the credit, so that it is written into the run folder with the trajectories: every advantage of
a run can be computed again from its files, without a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agentgym.types import Group


class Annotator:
    """Notes nothing: the base of those that do."""

    def __call__(self, groups: Sequence[Group]) -> list[Group]:
        """The groups with what is noted on them, in order."""
        return list(groups)

    def learn(self, groups: Sequence[Group]) -> dict[str, float]:
        """Learn from the groups of a step, after their credit; returns metrics."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What it has learned."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what was learned."""
