"""A run is a folder, written so that it can be killed at any moment and nothing in it is ever half a file.

config.toml          the resolved configuration, first of all
metrics.jsonl        a row a step, and a row an evaluation       tensorboard/  the same
ledger.jsonl         how each task occurrence ended
skipped.jsonl        rows whose loss or gradient was not finite, if there are any
stalls.jsonl         what it waited for, where it had to wait for long (trainers.stall)
trajectories/        step-00012.jsonl, eval-before.jsonl, ...    (agentgym.rollout.record)
checkpoints/  model/ to go on from, and to use                   curve.png  summary.json
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agentgym.config import Config, dump_toml, load_config
from agentgym.errors import ConfigError, RunError
from agentgym.rollout.record import read_rows, to_line, write_lines
from agentgym.types import Trajectory


class RunFolder:
    """The files of one run. Make one with `create` or `open`; writing raises `RunError` and keeps what was there."""

    def __init__(self, path: Path):
        self.path = path
        self.model = path / "model"
        self.checkpoints = path / "checkpoints"
        self.trajectories = path / "trajectories"
        self.tensorboard = path / "tensorboard"

    @classmethod
    def create(cls, path: str | Path, config: Config) -> RunFolder:
        """A new run's folder. `RunError` where something is there already, or nothing can be written."""
        folder = cls(Path(path).expanduser())
        if _occupied(folder.path):
            raise RunError(
                f"{folder.path} is there already and not empty: give another --run.dir, "
                f"go on with it by --resume {folder.path}, or remove it"
            )
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise RunError(f"{folder.path}: cannot make the run folder: {_reason(e)}") from None
        folder.write_config(config)  # first: --resume works from now on
        folder._make("trajectories", "checkpoints")
        return folder

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """A run that was begun earlier; `RunError` where the folder is none."""
        folder = cls(Path(path).expanduser())
        if not folder.path.is_dir():
            raise RunError(f"{folder.path}: there is no such run folder")
        if not (folder.path / "config.toml").is_file():
            raise RunError(f"{folder.path} is no run folder: it has no config.toml")
        folder._make("trajectories", "checkpoints")
        return folder

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else trains in this folder meanwhile; `RunError` where somebody does.

        The lock is the kernel's, on the folder itself, and ends with its process, however that ends. A file system
        that has no such locks holds nobody off.
        """
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise RunError(f"{self.path} is being trained by another process: wait for its end, or stop it") from None
        except OSError:
            pass
        try:
            yield
        finally:
            os.close(descriptor)

    def discard(self) -> None:
        """Remove the folder of a run that could not begin, if there is nothing in it that was learned or told: its
        configuration and an untrained model alone."""
        files = [path.relative_to(self.path) for path in self.path.rglob("*") if path.is_file()]
        if {path.parts[0] for path in files} <= {"config.toml", "model", "base"}:
            shutil.rmtree(self.path, ignore_errors=True)

    def load_config(self, steps: int | None = None) -> Config:
        """The configuration that the run was started with; steps: more learner steps than it was to make."""
        try:
            config = load_config(self.path / "config.toml")
        except ConfigError as e:
            raise RunError(f"{self.path} cannot be resumed: {e}") from None
        if steps is not None:
            if steps < config.trainer.steps:
                raise ConfigError(
                    f"trainer.steps = {steps}: {self.path} is a run of {config.trainer.steps} steps; --resume can only "
                    f"lengthen it (leave the option out to go on with it as it is)"
                )
            config.trainer.steps = steps
        return config

    def write_config(self, config: Config) -> Path:
        """Write config.toml, whole or not at all."""
        return self._write("config.toml", dump_toml(config).encode())

    def append(self, name: str, row: Mapping[str, Any]) -> None:
        """Add one row to a JSONL file. A write that fails half-way is taken back."""
        path = self.path / name
        try:
            with open(path, "ab", buffering=0) as file:
                size = file.tell()
                try:
                    _write_all(file.fileno(), to_line(row))
                except OSError:
                    with suppress(OSError):
                        os.ftruncate(file.fileno(), size)
                    raise
        except OSError as e:
            raise RunError(f"{path}: cannot be written: {_reason(e)}; the run can go on by --resume") from None

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of a JSONL file, none where there is no file; `DataError` where a line is malformed."""
        path = self.path / name
        return [row for _, row in read_rows(path)] if path.exists() else []

    def write_trajectories(self, name: str, trajectories: Sequence[Trajectory]) -> Path:
        """Write `trajectories/NAME.jsonl`, whole or not at all."""
        return self._write(f"trajectories/{name}.jsonl", write_lines(trajectories))

    def write_summary(self, summary: Mapping[str, Any]) -> Path:
        """Write summary.json, whole or not at all."""
        return self._write("summary.json", json.dumps(dict(summary), indent=2, default=str).encode() + b"\n")

    def write_file(self, name: str, fill: Callable[[Path], None]) -> Path:
        """Let `fill` write a file under a passing name, then put it in its place."""
        final = self.path / name
        staging = final.with_name(f"{final.name}.tmp")
        try:
            fill(staging)
            os.replace(staging, final)
        except OSError as e:
            staging.unlink(missing_ok=True)
            raise RunError(f"{final}: cannot be written: {_reason(e)}; what was there is intact") from None
        return final

    def rewind(self, step: int, evaluated: Sequence[str] = ()) -> None:
        """Forget what will be done again: what came after `step`, and evaluations that are not among `evaluated`.

        Lines cut short by a kill go too.
        """
        for name in ("metrics.jsonl", "ledger.jsonl", "skipped.jsonl"):
            path = self.path / name
            if path.exists():
                lines = path.read_bytes().splitlines(keepends=True)
                kept = [line for line in lines if _stands(line, step, evaluated)]
                self._write(name, b"".join(kept))
        for path in self.trajectories.glob("*step-*.jsonl"):
            number = path.stem.rpartition("step-")[2]
            if number.isdigit() and int(number) > step:
                path.unlink()

    def _write(self, name: str, content: bytes) -> Path:
        def fill(path: Path) -> None:
            path.write_bytes(content)

        return self.write_file(name, fill)

    def _make(self, *names: str) -> None:
        for name in names:
            try:
                (self.path / name).mkdir(exist_ok=True)
            except OSError as e:
                raise RunError(f"{self.path / name}: cannot make the folder: {_reason(e)}") from None


def model_path(text: str) -> str:
    """Where the model of `text` lies: a run folder's own model, its last checkpoint, or `text` itself.

    Ids and model folders pass unchanged; a run that has saved no model yet raises `RunError`.
    """
    path = Path(text).expanduser()
    if not (path / "config.toml").is_file():
        return text
    checkpoints = sorted((path / "checkpoints").glob("step-*/config.json"))
    for candidate in (path / "model", *(found.parent for found in reversed(checkpoints))):
        if (candidate / "config.json").is_file():
            return str(candidate)
        if candidate.is_dir():  # it is written whole or not at all, so somebody else took the file away
            other = f"; its last checkpoint is {checkpoints[-1].parent}" if checkpoints else ""
            raise RunError(f"{candidate} has no config.json, it was damaged after the run wrote it{other}")
    raise RunError(f"{path} has no model yet: let it come to its first checkpoint (--resume {path})")


def _occupied(path: Path) -> bool:
    try:
        if not path.exists():
            return False
        # a run that was killed while it wrote its very first file has left nothing to go on with
        return not path.is_dir() or any(found.name != "config.toml.tmp" for found in path.iterdir())
    except OSError as e:
        raise RunError(f"{path}: cannot be looked into: {_reason(e)}") from None


def _stands(line: bytes, step: int, evaluated: Sequence[str]) -> bool:
    try:
        row = json.loads(line)
    except ValueError:
        return False
    if not isinstance(row, dict) or not line.endswith(b"\n"):
        return False
    reached = max([int(row.get("step", 0)), *row.get("versions", [])])  # an evaluation meanwhile goes on for steps
    return reached <= step and row.get("eval") in (None, "during", *evaluated)


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]


def _reason(error: OSError) -> str:
    names = {errno.ENOSPC: "no disk space is left", errno.EDQUOT: "the disk quota is used up"}
    return names.get(error.errno or 0) or error.strerror or str(error)
