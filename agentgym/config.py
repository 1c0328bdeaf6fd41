"""The typed configuration: defaults here <- a recipe or file (TOML) <- `--section.key=value`.

The defaults are careful ones for a pretrained model; the recipe `store` has those of the tiny model. Every field
carries its meaning and unit. Unknown keys are refused with the nearest known name; bad values name the field and where
they came from. Importing this costs no torch.
"""

from __future__ import annotations

import difflib
import importlib.resources
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from agentgym.errors import ConfigError

DEFAULT_RECIPE = "store"
CONTROLS = Literal["none", "shuffle_rewards", "rejection_sampling"]


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", validate_assignment=True, coerce_numbers_to_str=True, use_attribute_docstrings=True
    )


class RunConfig(Section):
    dir: str = ""
    """Run folder; empty: `runs/<env>-<time>`."""
    seed: int = Field(0, ge=0)
    """Seed of everything random."""
    live: Literal["auto", "on", "off"] = "auto"
    """Live view on the terminal; auto: when there is one."""
    processes: Literal[1, 2] = 2
    """2: rollout worker and learner are processes of their own; 1: both in this one (debugging, notebooks)."""


class EnvConfig(Section):
    id: str = "agentgym/Store-v0"
    """Environment id or `path.py:name`."""
    name: str = ""
    """What reports call it; empty: its id. Needed where one id is played with several arguments."""
    data: str = ""
    """A JSONL file of tasks, in place of the env's generated ones."""
    reward: str = ""
    """`path.py:function`, reward(task, answer, episode) -> float or dict of components."""
    tools: str = ""
    """`path.py:a,b`: tools in place of the env's own."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of the env's constructor."""
    demo_args: dict[str, Any] = Field(default_factory=dict)
    """Arguments laid over `args` while its scripted expert plays demonstrations, as `{ busy = 0.3 }`."""
    weight: float = Field(1.0, gt=0)
    """Share of the groups, when there are several envs."""


class ModelConfig(Section):
    path: str = ""
    """A Hugging Face model folder or id; empty: a tiny model is built locally."""
    revision: str = ""
    """Revision of a Hugging Face id."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the engine's and learner's weights."""
    tool_format: str = "auto"
    """How the model writes tool calls; auto: by its chat template."""
    keep_thinking: bool = False
    """Keep earlier reasoning in the context where a chat template would remove it (else such an episode branches)."""
    layers: int = Field(3, ge=1)
    """Tiny model: layers."""
    width: int = Field(128, ge=8)
    """Tiny model: hidden size."""
    heads: int = Field(4, ge=1)
    """Tiny model: attention heads."""


class EngineConfig(Section):
    kind: Literal["local", "scripted"] = "local"
    """`local`: torch in this machine's rollout worker."""
    slots: int = Field(96, ge=1)
    """Sequences that the engine holds at once; fewer where memory has no room for the cache of so many."""
    max_context: int = Field(0, ge=0)
    """Tokens of a sequence, prompt included; 0: as many as the model has positions, at most 4096."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`; auto: a GPU where there is one."""
    threads: int = Field(1, ge=1)
    """Intra-op threads on a CPU."""


class EndpointConfig(Section):
    model: str = ""
    """Name of the model there; empty: the only one that the endpoint lists."""
    timeout: float = Field(60.0, gt=0)
    """Seconds that one request may take."""
    retries: int = Field(4, ge=0)
    """Further attempts where a request timed out, was refused for its rate (429), or the server failed (5xx)."""
    tools: Literal["native", "text"] = "native"
    """`native`: tools and calls in the protocol's own fields; `text`: described and written in the text."""
    concurrency: int = Field(16, ge=1)
    """Episodes under way at once."""


class RolloutConfig(Section):
    groups: int = Field(16, ge=1)
    """Tasks a step."""
    group_size: int = Field(8, ge=2)
    """Episodes a task."""
    max_staleness: int = Field(1, ge=0)
    """Versions a trained token may be behind; 0: synchronous."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature in training."""
    max_turns: int = Field(0, ge=0)
    """Assistant messages an episode may have; 0: the env's own limit."""
    max_tokens: int = Field(512, ge=1)
    """Tokens of one assistant message."""
    max_episode_tokens: int = Field(0, ge=0)
    """Sampled tokens of one episode; 0: no limit but the context."""
    max_seconds: float = Field(300.0, gt=0)
    """Seconds of one episode."""
    max_parse_errors: int = Field(3, ge=1)
    """Malformed messages in a row that end an episode."""
    concurrency: int = Field(96, ge=1)
    """Episodes under way at once."""
    failure_budget: float = Field(0.5, ge=0, le=1)
    """Share of unscored episodes in a step that stops the run."""


class TrainerConfig(Section):
    steps: int = Field(50, ge=0)
    """Learner steps."""
    credit: str = "grpo"
    """Credit assignment, by name."""
    loss: str = "grpo"
    """Loss, by name."""
    checkpoint_every: int = Field(10, ge=1)
    """Steps between checkpoints."""
    keep_checkpoints: int = Field(2, ge=1)
    """Checkpoints kept."""
    max_cpu_seconds: float = Field(0.0, ge=0)
    """CPU-seconds of the RL phase after which it stops; 0: no limit."""
    control: CONTROLS = "none"
    """Controls: shuffled rewards must not learn; rejection sampling is the supervised alternative."""


class LearnerConfig(Section):
    lr: float = Field(1e-6, gt=0)
    """Peak learning rate."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """AdamW everywhere, or Muon on the matrices of the blocks and AdamW on the rest."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay."""
    warmup: int = Field(0, ge=0)
    """Steps of linear warm-up."""
    decay: Literal["none", "linear", "cosine"] = "none"
    """Schedule after the warm-up, over `trainer.steps`."""
    grad_clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient."""
    clip_low: float = Field(0.2, ge=0, lt=1)
    """Ratio is clipped below at 1 - clip_low."""
    clip_high: float = Field(0.28, ge=0)
    """Ratio is clipped above at 1 + clip_high."""
    kl: float = Field(0.0, ge=0)
    """Weight of the distance (KL, as k2) from the policy that RL began with. 0: none, and no reference is held."""
    std: bool = True
    """GRPO divides by the group's standard deviation; false: Dr.GRPO."""
    minibatches: int = Field(1, ge=1)
    """Optimizer steps a batch."""
    agreement: float = Field(0.0, ge=0, lt=1)
    """Hold the rate at 1% until the gradients of a batch's minibatches agree: their mean cosine, of 4 at least
    (less is asked of more). Where rewards mean nothing it stays there. 0: not asked for."""
    tokens_per_microbatch: int = Field(8192, ge=1)
    """Padded tokens of one forward and backward pass."""
    ranks: int = Field(1, ge=1, le=1)
    """Learner processes (more than one comes with the distributed learner)."""
    device: str = "auto"
    """`cpu`, `cuda`; auto: a GPU where there is one."""
    threads: int = Field(1, ge=1)
    """Intra-op threads on a CPU."""

    @field_validator("agreement")
    @classmethod
    def _something_to_compare(cls, wanted: float, info: ValidationInfo) -> float:
        if wanted and info.data.get("minibatches", 2) < 2:
            raise ValueError("it compares minibatches: set learner.minibatches to 2 or more")
        return wanted


class SFTConfig(Section):
    data: str = ""
    """JSONL of conversations ({"messages": [...], "tools": [...]}); empty: the env's scripted expert."""
    steps: int = Field(0, ge=0)
    """Supervised steps before RL; 0: no warm start."""
    examples: int = Field(2048, ge=1)
    """Demonstrations played by the env's scripted expert."""
    batch_size: int = Field(64, ge=1)
    """Conversations a step."""
    lr: float = Field(1e-5, gt=0)
    """Peak learning rate."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """As `learner.optimizer`."""


class EvalConfig(Section):
    tasks: int = Field(400, ge=0)
    """Held-out tasks, before and after training; 0: no evaluation."""
    greedy: bool = True
    """Also evaluate greedily."""
    temperature: float = Field(1.0, gt=0)
    """Temperature of the sampled evaluation."""
    seed: int = Field(1_000_003, ge=0)
    """Seed of the evaluation, the same before and after."""


class Config(Section):
    """The whole of it. `envs` is the plural of `env`, for runs over several."""

    run: RunConfig = Field(default_factory=RunConfig)
    env: EnvConfig = Field(default_factory=EnvConfig)
    envs: list[EnvConfig] = Field(default_factory=list)
    model: ModelConfig = Field(default_factory=ModelConfig)
    engine: EngineConfig = Field(default_factory=EngineConfig)
    endpoint: EndpointConfig = Field(default_factory=EndpointConfig)
    rollout: RolloutConfig = Field(default_factory=RolloutConfig)
    trainer: TrainerConfig = Field(default_factory=TrainerConfig)
    learner: LearnerConfig = Field(default_factory=LearnerConfig)
    sft: SFTConfig = Field(default_factory=SFTConfig)
    eval: EvalConfig = Field(default_factory=EvalConfig)

    @property
    def all_envs(self) -> list[EnvConfig]:
        return self.envs or [self.env]


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
        _merge(merged, layer)
        source.update(dict.fromkeys(_flat(layer), where))
    try:
        return Config.model_validate(merged)
    except ValidationError as e:
        raise ConfigError(_explain(e, source)) from None


def _forget_other_env(merged: dict[str, Any], layer: Mapping[str, Any]) -> None:
    """A layer that names another env does not inherit what earlier ones said of theirs: its data, tools, arguments."""
    before, named = merged.get("env", {}).get("id"), layer.get("env", {}).get("id")
    if before is not None and named is not None and named != before:
        del merged["env"]


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
