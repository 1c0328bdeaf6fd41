"""What a part is given, and where it tells what it found."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any


class NoDevice(Exception):
    """There is no GPU to measure."""


class TookTooLong(Exception):
    """Stopped for the time; what it had measured is told."""


class Job:
    """device: `cuda` or `cpu`; quick: tiny sizes; folder: of all parts of one run; out: the part's own figures."""

    def __init__(self, device: str, quick: bool, seconds: float, folder: Path, out: Path):
        self.device, self.quick, self.folder = device, quick, folder
        self._out, self._ends = out, time.monotonic() + seconds
        self._figures: dict[str, Any] = {}

    def left(self) -> float:
        """Seconds until it is ended."""
        return self._ends - time.monotonic()

    def tell(self, **figures: Any) -> None:
        """Add figures. They are on disk at once: whatever happens next, they are kept."""
        self._figures.update(figures)
        self._write({"figures": self._figures})

    def failed(self, error: Exception) -> None:
        """The part ends with this."""
        self._write({"figures": self._figures, "status": status_of(error), "error": described(error)})

    def _write(self, found: dict[str, Any]) -> None:
        new = self._out.with_suffix(".new")
        new.write_text(json.dumps(found))
        new.replace(self._out)


def described(error: BaseException) -> dict[str, str]:
    """Its type and first line."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return {"type": type(error).__name__, "message": lines[0] if lines else type(error).__name__}


def status_of(error: BaseException) -> str:
    """Of a part that ended with `error`. CUDA says that memory is short in several ways."""
    for kind, status in ((ModuleNotFoundError, "missing"), (TookTooLong, "timeout")):
        if isinstance(error, kind):
            return status
    short = type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError)
    return "out_of_memory" if short or "out of memory" in str(error).lower() else "failed"
