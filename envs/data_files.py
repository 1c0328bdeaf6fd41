"""Where the rows of `data=` lie: a file here, or the files of a data set on the Hugging Face Hub.

JSONL and JSON lists (also gzipped) everywhere; Parquet where pyarrow is installed. A data set is named `owner/name`,
with `@revision` and `:folder` (or `:file`) where it has several: `openai/gsm8k:main`. Its loading script, if any, is
never run.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from agentgym.errors import DataError
from agentgym.hub import hub_problem
from agentgym.json_files import read_objects

_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^:]+))?(:(?P<part>.+))?")
_ROWS = (".jsonl", ".jsonl.gz", ".parquet")
_SPLITS = {"train": "train", "test": "test", "validation": "test", "valid": "test", "val": "test", "dev": "test"}


@dataclass(frozen=True, slots=True)
class DataFiles:
    """Paths of files with rows. `test` is empty where the data has no split of its own."""

    train: tuple[str, ...]
    test: tuple[str, ...] = ()


def find_files(data: str) -> DataFiles:
    """The files of a path or data set id, downloaded once; raises `DataError` saying what is missing."""
    named = _ID.fullmatch(data)
    if named is None or Path(data).exists() or data.endswith((*_ROWS, ".json", ".json.gz")):
        return DataFiles((data,))
    return _download(data, named["repo"], named["revision"], named["part"] or "")


def rows_of(path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(where, row) of every row of a file; raises `DataError`."""
    if not path.endswith(".parquet"):
        yield from ((f"{path}:{number}", row) for number, row in read_objects(path))
        return
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise DataError(f"{path}: Parquet files are read with pyarrow: pip install pyarrow, or use JSONL") from None
    try:
        table = parquet.read_table(path).to_pylist()
    except (OSError, ValueError) as e:
        raise DataError(f"{path}: cannot be read: {e}") from None
    yield from ((f"{path}, row {number}", row) for number, row in enumerate(table, 1))


@lru_cache(maxsize=16)
def _download(data: str, repo: str, revision: str | None, part: str) -> DataFiles:
    from huggingface_hub import HfApi, hf_hub_download

    what = f"data {data!r}"
    try:
        info = HfApi().dataset_info(repo, revision=revision, timeout=20)
        chosen = _choose(data, [file.rfilename for file in info.siblings or ()], part)
        paths = {name: hf_hub_download(repo, name, repo_type="dataset", revision=info.sha) for name in chosen}
    except DataError:
        raise
    except Exception as e:
        if (problem := hub_problem(e)) is None:
            raise
        raise DataError(f"{what}: there is no such file here, and {problem}") from None
    splits: dict[str, list[str]] = defaultdict(list)
    for name, split in chosen.items():
        splits[split].append(paths[name])
    if not splits["train"] or not splits["test"]:
        return DataFiles(tuple(paths.values()))
    return DataFiles(tuple(splits["train"]), tuple(splits["test"]))


def _choose(data: str, names: list[str], part: str) -> dict[str, str]:
    """File -> split, of one folder of a data set; a `validation` file counts as test where there is no test file."""
    inside = part.rstrip("/") + "/" if part else ""
    found = [name for name in sorted(names) if name.endswith(_ROWS) and f"{name}/".startswith(inside)]
    if not found:
        listed = ", ".join(sorted(names)[:8]) or "nothing"
        raise DataError(f"data {data!r}: no JSONL or Parquet file{f' in {part}' if part else ''}; there is {listed}")
    folders = sorted({str(PurePosixPath(name).parent) for name in found})
    if len(folders) > 1:
        options = " | ".join(f"{data.partition(':')[0]}:{folder}" for folder in folders)
        raise DataError(f"data {data!r}: has several folders; say which: {options}")
    splits = {name: _word(name) for name in found}
    if "test" in splits.values():
        found = [name for name in found if splits[name] in ("", "train", "test")]
    return {name: _SPLITS.get(splits[name], "") for name in found}


def _word(name: str) -> str:
    """The split that a file's name says, if any: data/train-00000-of-00001.parquet -> train."""
    words = re.split(r"[^a-z]+", PurePosixPath(name).name.lower())
    return next((word for word in words if word in _SPLITS), "")
