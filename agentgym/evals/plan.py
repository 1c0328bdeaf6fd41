"""What an evaluation plays: a model, and so many tasks and samples of one environment or several.

A plan is written as eval.toml, its own part under [evaluation] and [[play]], the rest being the configuration that
`agentgym.config` reads; `Suite` is the file in which a user writes down a choice of environments.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from agentgym.config import Config, EnvConfig, Section, build_config, dump_toml
from agentgym.errors import ConfigError, RunError
from agentgym.evals.rows import Key
from agentgym.evals.thresholds import check_metric


@dataclass(frozen=True, slots=True)
class EnvPlan:
    """What is played of one environment: `samples` episodes of each of the first `tasks` tasks of a split."""

    name: str
    id: str
    split: Literal["train", "test"]
    tasks: int
    samples: int
    ks: tuple[int, ...]
    """For pass@k and pass^k."""
    min: Mapping[str, float] = field(default_factory=dict)
    """Figures that it has to reach."""

    @property
    def keys(self) -> list[Key]:
        return [(self.name, task, sample) for task in range(self.tasks) for sample in range(self.samples)]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The whole plan. `model` is as the user gave it, `path` the folder, id or URL that it led to."""

    model: str
    path: str
    seed: int
    temperature: float
    greedy: bool
    envs: tuple[EnvPlan, ...]
    config: Config
    stamp: str = ""
    """Sizes and times of the weights' files: a resumed evaluation must not go on with another model."""
    min: Mapping[str, float] = field(default_factory=dict)

    @property
    def keys(self) -> list[Key]:
        return [key for env in self.envs for key in env.keys]

    @property
    def mode(self) -> str:
        return "greedy" if self.greedy else "sampled"


class SuiteEnv(EnvConfig):
    """One [[env]] of a suite: an environment's own keys, and what is played of it."""

    model_config = ConfigDict(extra="forbid", validate_default=True)
    id: str = ""
    tasks: int | None = Field(None, ge=1)
    samples: int | None = Field(None, ge=1)
    split: Literal["train", "test"] | None = None
    min: dict[str, float] = Field(default_factory=dict)


class Suite(Section):
    """A file of environments to evaluate on; what is not said there is taken from the command line."""

    name: str = ""
    tasks: int | None = Field(None, ge=1)
    samples: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=0)
    temperature: float | None = Field(None, ge=0)
    env: list[SuiteEnv] = Field(min_length=1)
    min: dict[str, float] = Field(default_factory=dict)
    """Over all of them."""


def read_suite(path: str) -> Suite:
    """A suite's file; raises `ConfigError` naming the file and the key."""
    where = Path(path).expanduser()
    try:
        suite = Suite.model_validate(tomllib.loads(where.read_text()))
    except OSError as e:
        raise ConfigError(f"suite {path}: cannot be read: {e.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ConfigError(f"suite {path}: not valid TOML: {e}") from None
    except ValidationError as e:
        wrong = e.errors()[0]
        key = ".".join(str(part) for part in wrong["loc"])
        raise ConfigError(f"suite {path}: {key}: {wrong['msg'].lower()}") from None
    for minimum in (suite.min, *(env.min for env in suite.env)):
        for metric, bound in minimum.items():
            check_metric(metric, bound, f"suite {path}: min")
    return suite


def choose_ks(ks: Sequence[int], samples: int, wanted: Mapping[str, float]) -> tuple[int, ...]:
    """The k's of pass@k and pass^k: those asked for, else 1, 2, 4, ... and `samples`; with those of thresholds.

    Raises `ConfigError` for a k beyond `samples`.
    """
    needed = {int(metric[5:]) for metric in wanted if metric.startswith(("pass@", "pass^"))}
    chosen = set(ks) or {samples, *(1 << i for i in range(samples.bit_length()) if 1 << i <= samples)}
    for k in sorted(chosen | needed):
        if not 1 <= k <= samples:
            more = f"play more: --samples {k}" if k > samples else "k starts at 1"
            raise ConfigError(f"k = {k}: pass@{k} cannot be told from {samples} samples a task; {more}")
    return tuple(sorted(chosen | needed))


def distinct(envs: Sequence[EnvConfig]) -> list[EnvConfig]:
    """The environments; `ConfigError` where two would have one name in the report."""
    names = [env.label for env in envs]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"env {name!r} is there twice: give each a name of its own (name = ...)")
    return list(envs)


def dump_plan(plan: Evaluation) -> str:
    """The plan as eval.toml."""
    own = {f.name: getattr(plan, f.name) for f in fields(plan) if f.name not in ("envs", "config")}
    lines = ["[evaluation]", *(f"{key} = {_toml(value)}" for key, value in own.items()), ""]
    for env in plan.envs:
        lines += ["[[play]]", *(f"{key} = {_toml(value)}" for key, value in asdict(env).items()), ""]
    return "\n".join([*lines, dump_toml(plan.config)])


def load_plan(path: Path) -> Evaluation:
    """The plan of an eval.toml; raises `RunError` for a file that is none."""
    try:
        found = tomllib.loads(path.read_text())
        own, plays = found.pop("evaluation"), found.pop("play")
        envs = tuple([EnvPlan(**{**play, "ks": tuple(play["ks"])}) for play in plays])
        return Evaluation(**own, envs=envs, config=build_config([(str(path), found)]))
    except OSError as e:
        raise RunError(f"{path}: cannot be read: {e.strerror}; is {path.parent} an evaluation's folder?") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError, ConfigError) as e:
        raise RunError(f"{path}: not the plan of an evaluation: {e}") from None


def with_config_envs(config: Config, envs: Sequence[EnvConfig]) -> Config:
    """The configuration with these environments in place of its own."""
    changed = config.model_copy(deep=True)
    if len(envs) == 1 and not envs[0].name:
        changed.env, changed.envs = envs[0], []
    else:
        changed.envs = list(envs)
    return changed


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    return json.dumps(value, ensure_ascii=False)
