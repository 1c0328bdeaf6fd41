"""The typed configuration: defaults here <- a recipe or file (TOML) <- `--section.key=value`.

Its sections are in `agentgym.sections` and `agentgym.learning_sections`. Unknown keys are refused with the nearest
known name; bad values name the field and where they came from. Importing this costs no torch.
"""

from __future__ import annotations

import difflib
import importlib.resources
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from agentgym.errors import ConfigError
from agentgym.learning_sections import (
    CONTROLS,
    CreditConfig,
    EvalConfig,
    LearnerConfig,
    LossConfig,
    SFTConfig,
    TrainerConfig,
)
from agentgym.section import Section
from agentgym.sections import (
    Config,
    EndpointConfig,
    EngineConfig,
    EnvConfig,
    ModelConfig,
    PlanConfig,
    RolloutConfig,
    RunConfig,
    SandboxConfig,
)

__all__ = [
    "CONTROLS",
    "DEFAULT_RECIPE",
    "Config",
    "CreditConfig",
    "EndpointConfig",
    "EngineConfig",
    "EnvConfig",
    "EvalConfig",
    "LearnerConfig",
    "LossConfig",
    "ModelConfig",
    "PlanConfig",
    "RolloutConfig",
    "RunConfig",
    "SFTConfig",
    "SandboxConfig",
    "Section",
    "TrainerConfig",
    "load_config",
    "recipes",
]

DEFAULT_RECIPE = "store"


def recipes() -> dict[str, Path]:
    """The built-in recipes by name."""
    folder = Path(str(importlib.resources.files("agentgym") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_config(recipe: str | Path | None = None, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Config:
    """Defaults <- recipe (built-in name or TOML file) <- overrides ("a.b=c" strings, or a nested or dotted dict)."""
    layers: list[tuple[str, dict[str, Any]]] = []
    if recipe is not None:
        layers.append(_read_recipe(recipe))
    if isinstance(overrides, Mapping):
        layers.append(("the given config", _nest(overrides)))
    else:
        told: dict[str, Any] = {}
        for text in overrides:
            _merge(told, _parse_override(text))
        layers.append(("the command line", told))
    return build_config(layers)


def recipe_for(recipe: str | Path | None, overrides: Sequence[str] | Mapping[str, Any]) -> str | Path | None:
    """The recipe of one who may have named none: `store`, which builds and warms up a tiny model; or none, hence the
    defaults, for a model that is given: its weights are not to be overrun by a tiny model's learning rates."""
    if recipe is None and not load_config(None, overrides).model.path:
        return DEFAULT_RECIPE
    return recipe


def build_config(layers: Sequence[tuple[str, Mapping[str, Any]]]) -> Config:
    """Merge (source, nested dict) layers, later over earlier, into a checked `Config`; raises `ConfigError`."""
    merged: dict[str, Any] = {}
    source: dict[str, str] = {}
    for where, layer in layers:
        _check_keys(layer, Config, (), where)
        _forget_other_env(merged, layer)
        _forget_other_loss(merged, layer)
        _merge(merged, layer)
        source.update(dict.fromkeys(_flat(layer), where))
    try:
        return Config.model_validate(merged)
    except ValidationError as e:
        raise ConfigError(_explain(e, source)) from None


def _forget_other_env(merged: dict[str, Any], layer: Mapping[str, Any]) -> None:
    """A layer that names another env does not inherit what earlier ones said of theirs: its data, tools, arguments, and
    how much its gradients agree, which no other env is to be held back by."""
    before, named = merged.get("env", {}).get("id"), layer.get("env", {}).get("id")
    if before is not None and named is not None and named != before:
        del merged["env"]
        merged.get("learner", {}).pop("agreement", None)


def _forget_other_loss(merged: dict[str, Any], layer: Mapping[str, Any]) -> None:
    """A layer that names a loss does not inherit the anchor that an earlier one chose for its own: each has one."""
    if layer.get("trainer", {}).get("loss") is not None:
        merged.get("loss", {}).pop("anchor", None)


def dump_toml(config: Config) -> str:
    """The resolved config as TOML that `load_config` reads back."""
    lines: list[str] = []
    for name, section in config.model_dump().items():
        if name == "envs":
            for env in section:
                lines += ["[[envs]]", *(f"{k} = {_toml(v)}" for k, v in env.items()), ""]
        else:
            lines += [f"[{name}]", *(f"{k} = {_toml(v)}" for k, v in section.items()), ""]
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def _read_recipe(recipe: str | Path) -> tuple[str, dict[str, Any]]:
    path = Path(recipe)
    if path.suffix != ".toml":
        known = recipes()
        if str(recipe) not in known:
            raise ConfigError(
                f"unknown recipe {str(recipe)!r}{_nearest(str(recipe), known)}; built in: {', '.join(known)}"
            )
        path = known[str(recipe)]
    try:
        return str(path), tomllib.loads(path.read_text())
    except OSError as e:
        raise ConfigError(f"{path}: cannot read the recipe: {e.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path}: not valid TOML: {e}") from None


def _parse_override(text: str) -> dict[str, Any]:
    key, eq, raw = text.removeprefix("--").partition("=")
    if not eq or not key:
        raise ConfigError(f"{text!r}: expected --section.key=value")
    return _nest({key: _value(raw)})


def _value(raw: str) -> Any:
    """A TOML value where it is one (numbers, true, lists), else the text itself; pydantic then types it."""
    try:
        return tomllib.loads(f"x = {raw}")["x"]
    except tomllib.TOMLDecodeError:
        return raw


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        parts = str(key).split(".")
        target = nested
        for part in parts[:-1]:
            target = target.setdefault(part, {})
            if not isinstance(target, dict):
                raise ConfigError(f"{key}: {part} is a value, not a section")
        _merge(target, {parts[-1]: value})
    return nested


def _merge(into: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, Mapping):
            child = into.setdefault(key, {})
            if isinstance(child, dict):
                _merge(child, value)
                continue
        into[key] = value


def _flat(layer: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in layer.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")


def _check_keys(layer: Mapping[str, Any], model: type[BaseModel], path: tuple[str, ...], where: str) -> None:
    for key, value in layer.items():
        field = model.model_fields.get(key)
        if field is None:
            name = ".".join((*path, key))
            raise ConfigError(f"{where}: unknown key {name!r}{_nearest(name, known_keys(), '.'.join(path))}")
        kind = _section_of(field.annotation)
        if kind is None:
            continue
        items = value if isinstance(value, list) else [value]
        for item in items:
            if not isinstance(item, Mapping):
                raise ConfigError(f"{where}: {'.'.join((*path, key))} is a section, not a value: got {item!r}")
            _check_keys(item, kind, (*path, key), where)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    candidates = [annotation, *get_args(annotation)]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def known_keys() -> list[str]:
    """Every key, dotted."""
    keys: list[str] = []
    for name, field in Config.model_fields.items():
        section = _section_of(field.annotation)
        keys += [name, *(f"{name}.{key}" for key in section.model_fields)] if section else [name]
    return keys


def _nearest(name: str, known: Sequence[str] | Mapping[str, Any], section: str = "") -> str:
    candidates = list(known)
    tail = name.rpartition(".")[2]
    # a right key in the wrong section ("lr", "trainer.lr") is nearer than any misspelling
    same_tail = [k for k in candidates if k.rpartition(".")[2] == tail]
    close = same_tail or difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
    if not close and section:
        close = [k for k in candidates if k.startswith(section + ".")][:3]
        return f"; keys there: {', '.join(close)}, ..."
    return f"; did you mean {close[0]!r}?" if close else ""


def _explain(error: ValidationError, source: Mapping[str, str]) -> str:
    lines = []
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"])
        where = source.get(name) or source.get(name.rpartition(".")[0]) or "the config"
        lines.append(f"{where}: {name} = {item.get('input')!r}: {item['msg'].lower()}")
    return "\n".join(lines)
