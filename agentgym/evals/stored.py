"""Where stored trajectories lie, and the environments that they were played in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from agentgym.config import Config, EnvConfig, load_config
from agentgym.errors import ConfigError, DataError, RunError
from agentgym.evals.folder import PLAN
from agentgym.evals.plan import load_plan
from agentgym.registry import make_env
from agentgym.rollout.record import read_rows
from agentgym.rollout.worker import env_factory

SUFFIXES = (".jsonl", ".jsonl.gz")


def trajectory_files(path: str) -> list[Path]:
    """The files of a path: a file, a folder of them, or a run's or an evaluation's; raises `DataError`."""
    where = Path(path).expanduser()
    if where.is_file():
        return [where]
    folder = where / "trajectories" if (where / "trajectories").is_dir() else where
    found = sorted(file for file in folder.glob("*") if file.name.endswith(SUFFIXES)) if folder.is_dir() else []
    if not found:
        raise DataError(f"{path}: no trajectories: expected a JSONL file, a folder of them, or a run's folder")
    return found


def stored_rows(files: list[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """("file:line", row) of every row; raises `DataError`."""
    for file in files:
        for number, row in read_rows(file):
            yield f"{file}:{number}", row


def config_beside(file: Path) -> Config | None:
    """The configuration of the run or evaluation whose folder `file` lies in, where there is one."""
    for folder in (file.parent, file.parent.parent):
        if (folder / PLAN).is_file():
            return load_plan(folder / PLAN).config
        if (folder / "config.toml").is_file():
            try:
                return load_config(folder / "config.toml")
            except ConfigError as e:
                raise RunError(f"{folder / 'config.toml'}: {e}") from None
    return None


def env_maker(
    config: Config | None, *, env: str = "", data: str = "", reward: str = "", args: Mapping[str, Any] | None = None
) -> Callable[[str], Any]:
    """Makes the env of an id that rows carry: `env` for all of them, else as `config` has it, else by the id itself.

    What is given of data, reward and args is laid over that.
    """
    changed = config.model_copy(deep=True) if config is not None else Config()
    specs = changed.all_envs if config is not None else []

    def laid_over(spec: EnvConfig) -> EnvConfig:
        own = {"data": data or spec.data, "reward": reward or spec.reward, "args": {**spec.args, **(args or {})}}
        return spec.model_copy(update=own)

    if env:
        given = laid_over(next((spec for spec in specs if spec.id == env), EnvConfig(id=env)))
        return lambda env_id: _make(given)
    changed.envs = [laid_over(spec) for spec in specs]
    known = {name for spec in specs for name in (spec.id, spec.name)}
    from_config = env_factory(changed)
    return lambda env_id: from_config(env_id) if env_id in known else _make(laid_over(EnvConfig(id=env_id)))


def _make(spec: EnvConfig) -> Any:
    return make_env(spec.id, data=spec.data, reward=spec.reward, tools=spec.tools, args=spec.args)
