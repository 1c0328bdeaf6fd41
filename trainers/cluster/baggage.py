"""What a worker on another machine needs and does not have: the model's folder and the user's files.

Machines share no file system: contents travel, and the configuration is changed to say where they lie there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agentgym.config import Config
from agentgym.errors import ConfigError
from agentgym.rollout.worker import WorkerSpec

MAX_BYTES = 4 << 30
"""Of a model folder that travels; larger ones are to be fetched from the hub."""
BESIDE = 200
"""Python files beside a user's that travel with it, for it may import them."""
_BESIDE_WEIGHTS = (".json", ".jinja", ".txt", ".model")
_WEIGHTS = (".safetensors", *_BESIDE_WEIGHTS)


@dataclass(frozen=True, slots=True)
class Baggage:
    """Files by the place they are to have below a folder, and the spec as it is to be read there."""

    spec: WorkerSpec
    files: dict[str, bytes]

    def unpack(self, folder: Path) -> WorkerSpec:
        """Write the files below `folder`; the spec that names them there."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        config = Config.model_validate(self.spec.config.model_dump())
        for env in config.all_envs:
            env.id, env.reward, env.tools, env.data = (
                _placed(text, folder, self.files) for text in (env.id, env.reward, env.tools, env.data)
            )
        config.rollout.agent = _placed(config.rollout.agent, folder, self.files)
        return WorkerSpec(config, _placed(self.spec.model_path, folder, self.files), self.spec.version)


def pack(spec: WorkerSpec, *, weights: bool = True) -> Baggage:
    """Gather what the spec names on this machine's disk; without `weights` for those whose engine is elsewhere.

    Raises `ConfigError` for what is too large to travel."""
    files: dict[str, bytes] = {}
    config = Config.model_validate(spec.config.model_dump())
    for i, env in enumerate(config.all_envs):
        env.name = env.label  # requests call it what it is called here
        for key in ("id", "reward", "tools", "data"):
            text = getattr(env, key)
            if found := _local_file(text):
                setattr(env, key, _take(found, f"user-{i}-{key}", files) + text[len(_path_of(text)) :])
    agent = config.rollout.agent
    if found := _local_file(agent):
        config.rollout.agent = _take(found, "agent", files) + agent[len(_path_of(agent)) :]
    model = _model_files(spec.model_path, weights)
    return Baggage(WorkerSpec(config, "model" if model else spec.model_path, spec.version), files | model)


def pack_model(spec: WorkerSpec) -> Baggage:
    """Gather the spec's model alone, for those who play no episodes. Raises `ConfigError` as `pack`."""
    files = _model_files(spec.model_path, True)
    return Baggage(WorkerSpec(spec.config, "model" if files else spec.model_path, spec.version), files)


def pack_file(reference: str, place: str) -> tuple[str, dict[str, bytes]] | None:
    """`path.py:name` as it is to be read below a folder, and the files to put there; None for what names no file."""
    found = _local_file(reference)
    if not found:
        return None
    files: dict[str, bytes] = {}
    return _take(found, place, files) + reference[len(_path_of(reference)) :], files


def _model_files(name: str, weights: bool) -> dict[str, bytes]:
    """The files of a model folder, below `model/`; none of an id of the hub."""
    model = Path(name).expanduser()
    if not name or not model.is_dir():
        return {}
    wanted = _WEIGHTS if weights else _BESIDE_WEIGHTS
    contents = [path for path in sorted(model.iterdir()) if path.is_file() and path.suffix in wanted]
    if sum(path.stat().st_size for path in contents) > MAX_BYTES:
        raise ConfigError(
            f"{model}: too large to be sent to every worker ({MAX_BYTES >> 30} GiB at most): "
            "name a model of the hub, which every machine fetches for itself"
        )
    return {f"model/{path.name}": path.read_bytes() for path in contents}


def _path_of(text: str) -> str:
    """`path.py` of `path.py:name`, else the text."""
    head, colon, _ = text.rpartition(":")
    return head if colon and head.endswith(".py") else text


def _local_file(text: str) -> Path | None:
    if not text:
        return None
    path = Path(_path_of(text)).expanduser()
    return path if path.is_file() else None


def _take(path: Path, place: str, files: dict[str, bytes]) -> str:
    for each in _company(path):
        files[f"{place}/{each.name}"] = each.read_bytes()
    return f"{place}/{path.name}"


def _company(path: Path) -> Iterator[Path]:
    yield path
    if path.suffix == ".py":
        beside = [other for other in sorted(path.parent.glob("*.py")) if other != path]
        yield from beside[:BESIDE]


def _placed(text: str, folder: Path, files: dict[str, bytes]) -> str:
    path = _path_of(text)
    if path in files or any(name.startswith(f"{path}/") for name in files if path):
        return str(folder / path) + text[len(path) :]
    return text
