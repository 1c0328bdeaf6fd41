"""What is no fault but a want: an env without gold, with few tasks, without a datasheet."""

from __future__ import annotations

import inspect
import re
from typing import Any

from agentgym.envs.validate.bench import SPLITS, Bench

ENOUGH = 20
"""Tasks."""
SECTIONS = ("Description", "Reward", "Episode end", "Tasks")


def warnings_of(bench: Bench) -> list[str]:
    """Remarks that `--strict` makes failures of."""
    return [*_gold(bench), *_tasks(bench), *_datasheet(bench.env)]


def _gold(bench: Bench) -> list[str]:
    without = [case for case, played in bench.golds.items() if played is None]
    if not without:
        return []
    return [
        f"{len(without)} of {len(bench.cases)} tasks have no gold player: give them a `demo`, or the env an `expert`"
    ]


def _tasks(bench: Bench) -> list[str]:
    known = {task.id for split in SPLITS for task in bench.env.tasks(split)[:ENOUGH]}
    return [] if len(known) >= ENOUGH else [f"only {len(known)} tasks; a reward is better judged on {ENOUGH} or more"]


def _datasheet(env: Any) -> list[str]:
    from agentgym.envs.tool_env import ToolEnv

    if type(env) is ToolEnv:  # put together from functions: what pays has to say what it pays for
        told = getattr(env, "_scoring", (None,))[0]
        return [] if told is None or inspect.getdoc(told) else ["the reward function has no docstring"]
    text = inspect.getdoc(type(env)) if type(env).__doc__ else ""
    missing = [name for name in SECTIONS if not re.search(rf"^#+ {name}", text or "", re.MULTILINE)]
    return [f"its docstring has no section {', '.join(f'## {name}' for name in missing)}"] if missing else []
