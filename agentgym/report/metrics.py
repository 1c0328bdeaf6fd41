"""Metrics of a run: metrics.jsonl, and the same for TensorBoard."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from agentgym.run_folder import RunFolder


class MetricsWriter:
    """A `Logger` that writes to a run folder. TensorBoard is loaded with the first row, and may be left out."""

    def __init__(self, folder: RunFolder, *, tensorboard: bool = True):
        self._folder = folder
        self._board = Board(folder.tensorboard) if tensorboard else None

    def log(self, row: Mapping[str, Any], step: int) -> None:
        """Write a row: nested dicts stay nested in the file (numbers that are not finite become null)."""
        self._folder.append("metrics.jsonl", {"step": step, **_finite(row)})
        if self._board is not None:
            prefix = f"eval/{row['eval']}/" if "eval" in row else ""
            self._board.add({prefix + name: value for name, value in _scalars(row) if name != "step"}, step)

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


class Board:
    """TensorBoard's event file, without torch. metrics.jsonl is the record: a failure here ends only the board."""

    def __init__(self, path: Path):
        self._path = path
        self._writer: Any = None
        self._broken = False

    def add(self, scalars: Mapping[str, float], step: int) -> None:
        if self._broken:
            return
        try:
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.compat.proto.summary_pb2 import Summary

            if self._writer is None:
                from tensorboard.summary.writer.event_file_writer import EventFileWriter

                self._writer = EventFileWriter(str(self._path))
            values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
            self._writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        except (OSError, ImportError):
            self._broken = True

    def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(OSError):
                writer.close()


def _scalars(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in row.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{key}", float(value)


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN and no infinity."""
    clean: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            clean[str(key)] = _finite(value)
        elif isinstance(value, float) and not math.isfinite(value):
            clean[str(key)] = None
        else:
            clean[str(key)] = value
    return clean
