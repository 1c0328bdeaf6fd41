"""BFCL-like files for the tests, made up here; and the real ones, where they are."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

BFCL = Path(os.environ.get("AGENTGYM_DATA", Path(__file__).parents[4] / "shared" / "data")) / "tool" / "bfcl"


@pytest.fixture
def bfcl() -> Path:
    if not BFCL.is_dir():
        pytest.skip(f"no {BFCL}: set AGENTGYM_DATA to the folder of benchmark data")
    return BFCL


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Iterable[Mapping[str, Any]]], Path]:
    """write(name, rows) -> the path of a JSONL file, gzipped if its name says so."""

    def run(name: str, rows: Iterable[Mapping[str, Any]]) -> Path:
        path = tmp_path / name
        text = "\n".join(json.dumps(row) for row in rows)
        if name.endswith(".gz"):
            path.write_bytes(gzip.compress(text.encode()))
        else:
            path.write_text(text)
        return path

    return run
