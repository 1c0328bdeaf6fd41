"""Whether the files of a checkpoint or a model's folder are whole, as far as can be told without loading them.

Nothing that a file holds is run: of an archive the directory is read, and of a pickle the plain values in it.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from agentgym.trainers.learner_state import REST, SHARDED, WHOLE

_LOCAL = b"PK\x03\x04"
"""What each file of an archive begins with."""


class Damaged(Exception):
    """A file that is not whole; the text begins with its name in the folder."""


def check_model(folder: Path) -> None:
    """Raises `Damaged` where the folder's configuration or weights are not whole files."""
    _named("config.json", lambda: json.loads((folder / "config.json").read_text()))
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise Damaged("no weights (*.safetensors)")
    for file in files:
        _named(file.name, lambda file=file: _safetensors(file))  # type: ignore[misc]


def check_checkpoint(folder: Path) -> None:
    """As `check_model`, and the state of the learner, of one rank or of several, and whatever else lies beside it."""
    check_model(folder)
    if not (folder / WHOLE).exists() and not (folder / SHARDED).exists():
        raise Damaged(f"no state of the learner ({WHOLE}, or the folder {SHARDED})")
    for file in sorted(folder.glob("*.pt")):
        _named(file.name, lambda file=file: _archive(file))  # type: ignore[misc]
    if (folder / SHARDED).exists():
        _named(REST, lambda: json.loads((folder / REST).read_text()))
        _shards(folder / SHARDED)


def _named(name: str, read: Callable[[], object]) -> None:
    """Read a file; whatever is wrong with it is told under its name."""
    try:
        read()
    except Damaged:
        raise
    except Exception as e:
        raise Damaged(f"{name}: {getattr(e, 'strerror', None) or e or type(e).__name__}") from e


def _safetensors(path: Path) -> None:
    from safetensors import safe_open

    with safe_open(path, "np") as weights:
        weights.keys()


def _archive(path: Path) -> None:
    """What torch.save wrote: its directory, which comes last, names each part, where it begins and how long it is."""
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
        pickles = [part for part in parts if part.filename.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("holds no state that torch has saved")
        archive.read(pickles[0])  # its checksum is looked at
        for part in parts:
            file.seek(part.header_offset)
            if file.read(len(_LOCAL)) != _LOCAL or part.header_offset + part.compress_size > archive.start_dir:
                raise ValueError(f"{part.filename} is not where the archive says")


def _shards(folder: Path) -> None:
    """What torch.distributed.checkpoint wrote: `.metadata` says which stretches of which files hold the tensors."""
    ends: Counter[str] = Counter()

    def read() -> None:
        with (folder / ".metadata").open("rb") as file:
            stored = _Plain(file).load().storage_data
        for place in stored.values():  # none where no step has been made: an optimizer begins without state
            ends[place.relative_path] = max(ends[place.relative_path], place.offset + place.length)

    _named(f"{SHARDED}/.metadata", read)
    for name, end in sorted(ends.items()):
        path = folder / name
        if not path.is_file():
            raise Damaged(f"{SHARDED}/{name}: is not there")
        if (size := path.stat().st_size) != end:
            raise Damaged(f"{SHARDED}/{name}: has {size} bytes, and .metadata says {end}")


class _Thing:
    """Stands for every object of a pickle: its attributes, and nothing that it can do."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


class _Plain(pickle.Unpickler):
    """Reads a pickle without importing or calling anything that it names."""

    def __init__(self, file: BinaryIO):
        super().__init__(file)

    def find_class(self, module: str, name: str) -> Any:
        return _Thing
