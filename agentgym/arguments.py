"""Command-line arguments that are configuration: `--section.key=value` beside a command's own options."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from pydantic import BaseModel

from agentgym.config import Config, known_keys, load_config
from agentgym.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

FLAGS = frozenset(("--help", "--version"))


def split_overrides(arguments: Sequence[str], options: Collection[str]) -> tuple[list[str], list[str]]:
    """(what is left for the command, the overrides as `a.b=c`).

    `options` are the command's own, such as `--seed`; `--a.b c` and `--a.b=c` are equal. Raises `ConfigError` for an
    option that neither the command nor the configuration knows, with the nearest that one of them does.
    """
    left: list[str] = []
    overrides: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            left += [argument, *rest]
        elif not argument.startswith("--"):
            left.append(argument)
        elif "." in (name := argument.partition("=")[0]):
            overrides.append(_override(argument, rest))
        elif name in options or name in FLAGS:
            left.append(argument)
        else:
            raise ConfigError(f"unknown option {name}{_nearest_option(name, options)}")
    return left, overrides


def _override(argument: str, rest: Iterator[str]) -> str:
    key, equals, value = argument.removeprefix("--").partition("=")
    if not equals:
        following = next(rest, None)
        if following is None or following.startswith("--"):
            raise ConfigError(f"--{key} needs a value: --{key}=VALUE")
        value = following
    return f"{key}={value}"


def _nearest_option(name: str, options: Collection[str]) -> str:
    keys = [f"--{key}" for key in known_keys() if "." in key]
    same = [key for key in keys if key.rpartition(".")[2] == name.removeprefix("--").replace("-", "_")]
    close = same or difflib.get_close_matches(name, [*options, *keys], n=1, cutoff=0.6)
    return f"; did you mean {' or '.join(close[:2])}?" if close else " (see --help)"


def shorthand(options: Mapping[str, Any]) -> list[str]:
    """Overrides of the options that were given: `{"run.seed": 1, "env.id": None}` -> `["run.seed=1"]`."""
    return [f"{key}={value}" for key, value in options.items() if value is not None]


def env_keys(alone: bool, env: str | None, data: str | None, reward: str | None, tools: str | None) -> dict[str, Any]:
    """What a command's options say of the env. With no recipe or run that has one (`alone`), data, reward and tools
    are an env of their own."""
    own = alone and env is None and any((data, reward, tools))
    return {"env.id": "" if own else env, "env.data": data, "env.reward": reward, "env.tools": tools}


def settings(
    model: str | None,
    recipe: str | None,
    env: str | None,
    data: str | None,
    reward: str | None,
    tools: str | None,
    overrides: Sequence[str],
) -> Config:
    """The config to play with one env: a run brings its own settings and env, a recipe its own; else --env says it."""
    own = Path(model).expanduser() / "config.toml" if model else None
    base: str | Path | None = own if own is not None and own.is_file() and recipe is None else recipe
    known = load_config(base).all_envs if base is not None else []
    given = [*shorthand(env_keys(base is None, env, data, reward, tools)), *overrides]
    chosen = [spec for spec in known if env in (None, spec.id, spec.label)]
    if env is None and len(known) > 1:
        raise ConfigError(f"{base} has several environments: choose by --env {' | '.join(e.label for e in known)}")
    if env is None and not known and not any(override.startswith("env.") for override in given):
        raise ConfigError(
            f"{_no_run(model)}which environment? give its id or path.py:name (agentgym envs lists the ids)"
        )
    config = load_config(base, given)
    if config.envs:
        config.env, config.envs = chosen[0] if chosen else config.env, []
    return config


def _no_run(model: str | None) -> str:
    """Why `model` does not say the env itself, as a run does: most often its name is mistyped."""
    if model is None or "://" in model:
        return ""
    path = Path(model).expanduser()
    if not path.exists():
        return f"there is no run {model!r} here; for a model of that id: "
    whole = path.is_dir() and (path / "config.json").is_file()
    return "" if whole else f"{model} is no run folder (it has no config.toml); "


def config_rows(config: Config) -> Iterator[tuple[str, str, str]]:
    """(key, value in `config`, what it means) for every key."""
    for section, value in config:
        if not isinstance(value, BaseModel):  # `envs`, the plural of `env`
            continue
        for name, field in type(value).model_fields.items():
            meaning = " ".join((field.description or "").split())
            yield f"{section}.{name}", _shown(getattr(value, name)), meaning + _choices(field.annotation)


def config_table(config: Config) -> Table:
    """The keys as a table for the terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("key", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("meaning")
    former = ""
    for key, value, meaning in config_rows(config):
        section = key.partition(".")[0]
        if former not in ("", section):
            table.add_row()
        former = section
        table.add_row(Text(f"--{key}", style="cyan"), Text(value, style="green"), Text(meaning))
    return table


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value in ("", {}, []) else str(value)


def _choices(annotation: Any) -> str:
    if get_origin(annotation) is not Literal:
        return ""
    return f" ({' | '.join(str(choice) for choice in get_args(annotation))})"
