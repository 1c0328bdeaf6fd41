"""What rescoring an episode gives: a verdict, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from agentgym.types import Outcome

How: TypeAlias = Literal["messages", "replay"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """An episode's reward, scored anew. `turns` are the rewards of its turns, the end's with the last of them."""

    by: How
    turns: tuple[float, ...]
    components: Mapping[str, float]
    outcome: Outcome

    @property
    def reward(self) -> float:
        return float(sum(self.turns))


class NotRescored(Exception):
    """An episode that cannot be scored anew; the text says why, in words that can be counted."""


class NeedsReplay(BaseException):
    """The reward asked for what no row holds. No `Exception`: a reward that catches those must not go on."""
