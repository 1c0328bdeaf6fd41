"""What a run has to know of the envs that it trains on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from agentgym.config import Config
from agentgym.errors import ConfigError
from agentgym.loading import users_code
from agentgym.trainers.credit.needs import check_needs
from agentgym.trainers.frontier import TaskSource


class PlayedEnvs(NamedTuple):
    sources: list[TaskSource]
    """Their training tasks, with their weights."""
    gold: dict[str, str]
    """Label -> the component of its reward that tells true success."""
    answers: dict[tuple[str, str], Any]
    """(label, task id) -> the answer, where credit asks for it."""


def played_envs(config: Config, make_env: Callable[[str], Any]) -> PlayedEnvs:
    """Each env is made once for it. Raises `ConfigError` for one without tasks, or without what the credit needs."""
    found = PlayedEnvs([], {}, {})
    for spec in config.all_envs:
        env = make_env(spec.label)
        with users_code(f"env.id = {spec.id!r}: its tasks cannot be made"):
            tasks = env.tasks("train")
        if not len(tasks):
            raise ConfigError(f"env.id = {spec.id!r}: has no training tasks")
        check_needs(config, spec.label, env)
        found.gold[spec.label] = str(getattr(env, "gold", "gold"))
        if config.credit.score == "gold":
            found.answers.update({(spec.label, task.id): task.answer for task in tasks})
        kinds = [task.kind for task in tasks]
        found.sources.append(TaskSource(spec.label, [task.id for task in tasks], spec.weight, kinds))
    return found
