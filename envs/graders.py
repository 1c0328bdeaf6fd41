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
from typing import TYPE_CHECKING, Any, Literal

from agentgym.envs.rubric import Component
from agentgym.errors import ConfigError

if TYPE_CHECKING:
    from agentgym.envs.tool_env import ToolEnv

NAMED: dict[str, tuple[str, Literal["end", "turn", "group"]]] = {
    "agreement": ("agentgym.envs.verifiers.consistency:Agreement", "group"),
    "consistency": ("agentgym.envs.verifiers.consistency:Consistency", "end"),
    "efficiency": ("agentgym.envs.verifiers.efficiency:Efficiency", "group"),
    "judge": ("agentgym.envs.verifiers.judge:Judge", "end"),
    "progress": ("agentgym.envs.score:Progress", "turn"),
    "rank": ("agentgym.envs.verifiers.judge:RankJudge", "group"),
}
"""Where a grader is made, and when it is asked: at an episode's end, after each message, over a group of episodes."""


def named_components(rewards: Mapping[str, Any], env: ToolEnv) -> tuple[Component, ...]:
    """A component for each name: weight, or a table of `weight` and arguments. Raises `ConfigError`."""
    return tuple(_component(name, given, env) for name, given in rewards.items())


def _component(name: str, given: Any, env: ToolEnv) -> Component:
    if name not in NAMED:
        close = difflib.get_close_matches(name, NAMED, n=1)
        nearest = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"env.rewards: unknown grader {name!r}{nearest} (known: {', '.join(NAMED)})")
    arguments = dict(given) if isinstance(given, Mapping) else {"weight": given}
    weight = arguments.pop("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise ConfigError(f"env.rewards.{name}: expected a weight or a table of settings, got {given!r}")
    target, when = NAMED[name]
    module, _, made = target.partition(":")
    grader = getattr(import_module(module), made)
    try:
        fn = grader(env, **arguments) if when == "turn" else grader(**arguments)
    except (TypeError, ValueError) as e:
        raise ConfigError(f"env.rewards.{name}: {e}") from None
    return Component(fn, name, float(weight), per_turn=when == "turn", per_group=when == "group")
