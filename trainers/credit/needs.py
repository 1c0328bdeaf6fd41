"""What a credit needs of an env, told before a run begins where that can be known, and else when enough was played."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agentgym.config import Config
from agentgym.errors import ConfigError
from agentgym.types import Group

TURN_REWARDS = ("turn",)
"""Credits that are worth their name only where messages before the last are paid."""
EPISODES = 256
"""Episodes of several turns after which it is told that none of them was paid before its last one."""
_REMEDY = (
    "pay turns by a Component(..., per_turn=True), or by env.rewards = { progress = 0.5 } where the env reports its "
    "progress; where there is nothing to pay them for, take 'rloo' or 'grpo'"
)


def check_needs(config: Config, env_id: str, env: Any) -> None:
    """Raises `ConfigError` where `trainer.credit` needs what this env says that it never has."""
    if config.trainer.control == "rejection_sampling":
        return
    credit = config.trainer.credit
    own_program = bool(config.rollout.agent)  # it may reward its completions itself
    if credit in TURN_REWARDS and not own_program and getattr(env, "pays_turns", None) is False:
        raise ConfigError(
            f"trainer.credit = {credit!r} needs rewards of single turns, and {env_id} pays at the end only: {_REMEDY}"
        )
    if credit == "progress" and config.credit.score == "gold":
        without = next((task.id for task in env.tasks("train") if task.answer is None), None)
        if without is not None:
            raise ConfigError(
                f"credit.score = 'gold': task {without} of {env_id} has no answer whose likelihood could be asked; "
                "take credit.score = 'env' or 'consistency'"
            )


@dataclass(slots=True)
class TurnRewardWatch:
    """Warns once an env where turns are never paid though the credit is made for that; rare rewards are given time."""

    credit: str = ""
    seen: dict[str, int] = field(default_factory=dict)
    """Episodes of several turns by env, until one of them was paid before its last turn."""
    settled: set[str] = field(default_factory=set)

    def warnings(self, groups: Sequence[Group], step: int) -> list[str]:
        """What is to be told now."""
        told: list[str] = []
        for group in groups if self.credit in TURN_REWARDS else ():
            if group.env_id in self.settled:
                continue
            several = [t for t in group.trajectories if t.reward is not None and len(t.turns) > 1]
            self.seen[group.env_id] = count = self.seen.get(group.env_id, 0) + len(several)
            paid = any(turn.reward for t in several for turn in t.turns[:-1])
            if paid or count >= EPISODES:
                self.settled.add(group.env_id)
            if not paid and count >= EPISODES:
                told.append(
                    f"step {step}: trainer.credit = {self.credit!r}, but of {count} episodes of {group.env_id} with "
                    f"several turns none was paid before its last one: {_REMEDY}"
                )
        return told
