"""`agentgym train --dry-run`: what a run would take. Part of the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from agentgym.config import Config
from agentgym.errors import ConfigError
from agentgym.report.summary import write_json
from agentgym.report.terminal import quiet_libraries

WIDTH = 120
"""Columns where the plan goes to a file or a pipe."""


def plan(config: Config, to_json: str | None) -> None:
    """Print what a run would take. Raises `ConfigError` where it does not fit, after all was printed."""
    quiet_libraries()
    from agentgym.trainers.plan.resolve import make_plan
    from agentgym.trainers.plan.show import figures, tell, verdict
    from agentgym.trainers.plan.split import best_split

    planned = make_plan(config)
    best = best_split(planned)
    there = Console(stderr=to_json == "-", highlight=False)
    tell(there if there.is_terminal else Console(stderr=to_json == "-", width=WIDTH), planned, best)
    if to_json == "-":
        print(json.dumps(figures(planned, best), indent=2))
    elif to_json is not None:
        write_json(Path(to_json), figures(planned, best))
    if told := verdict(planned):
        raise ConfigError(told)


COMMANDS: dict[str, Callable[..., None]] = {}
