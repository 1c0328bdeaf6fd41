"""Graders by name, for a recipe's `env.rewards`: further parts of any env's reward, without code. They change what
is paid, never whether an episode counts as a success.

    [env]
    rewards = { efficiency = 0.2, agreement = 0.0 }                  # name = weight; 0: a metric
    rewards = { efficiency = { weight = 0.2, measure = "turns" } }   # with the grader's own arguments
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from agentgym.envs.rubric import Component
from agentgym.errors import ConfigError

NAMED: dict[str, tuple[str, bool]] = {
    "agreement": ("agentgym.envs.verifiers.consistency:Agreement", True),
    "consistency": ("agentgym.envs.verifiers.consistency:Consistency", False),
    "efficiency": ("agentgym.envs.verifiers.efficiency:Efficiency", True),
    "judge": ("agentgym.envs.verifiers.judge:Judge", False),
    "rank": ("agentgym.envs.verifiers.judge:RankJudge", True),
}
"""Where a grader is made, and whether it compares the episodes of a group."""


def named_components(rewards: Mapping[str, Any]) -> tuple[Component, ...]:
    """A component for each name: weight, or a table of `weight` and arguments. Raises `ConfigError`."""
    return tuple(_component(name, given) for name, given in rewards.items())


def _component(name: str, given: Any) -> Component:
    if name not in NAMED:
        close = difflib.get_close_matches(name, NAMED, n=1)
        nearest = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"env.rewards: unknown grader {name!r}{nearest} (known: {', '.join(NAMED)})")
    arguments = dict(given) if isinstance(given, Mapping) else {"weight": given}
    weight = arguments.pop("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise ConfigError(f"env.rewards.{name}: expected a weight or a table of settings, got {given!r}")
    target, per_group = NAMED[name]
    module, _, made = target.partition(":")
    try:
        grader = getattr(import_module(module), made)(**arguments)
    except (TypeError, ValueError) as e:
        raise ConfigError(f"env.rewards.{name}: {e}") from None
    return Component(grader, name, float(weight), per_group=per_group)
