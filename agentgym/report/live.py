"""The live view of a run on a terminal: stages, progress, the reward so far, success by kind, an episode.

A thread draws it twice a second, so that a clock runs while the learner computes; a frame costs a few milliseconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from agentgym.report.frame import View, draw
from agentgym.report.progress import Progress, duration, figure, flat
from agentgym.types import Trajectory

PERIOD = 0.5
"""Seconds between frames."""


class LiveReporter:
    """A `Reporter` for terminals. Every method may be called from any thread."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = monotonic, period: float = PERIOD):
        self._console = console or Console()
        self._progress = Progress(clock)
        self._episode: Trajectory | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")
        self._live.start()
        self._period = period
        self._thread = threading.Thread(target=self._draw_on, name="agentgym-live", daemon=True)
        self._thread.start()

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        with self._lock:
            self._progress.begin(name, total, unit)
        self._draw()

    def advance(self, done: int, **fields: float | str) -> None:
        with self._lock:
            self._progress.advance(done, fields)

    def metrics(self, row: Mapping[str, Any], step: int) -> None:
        with self._lock:
            self._progress.metrics(row, step)

    def episode(self, trajectory: Trajectory) -> None:
        self._episode = trajectory

    def note(self, text: str) -> None:
        at = duration(self._progress.now())
        self._console.print(Text.assemble((f"[{at:>6}] ", "dim"), text))

    def result(self, title: str, rows: Mapping[str, Any]) -> None:
        self.close()
        found = flat(rows)
        width = max((len(name) for name in found), default=0)
        self._console.print(Text(title, style="bold"))
        for name, value in found.items():
            self._console.print(Text.assemble((f"  {name:<{width}}  ", "dim"), figure(value)))

    def close(self) -> None:
        """Leave the last frame on the screen, without the episode, and give the terminal back."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._thread.join(timeout=2)
        with self._lock:
            self._progress.end()
        self._episode = None
        self._draw()
        self._live.stop()

    def _draw_on(self) -> None:
        while not self._closed.wait(self._period):
            self._draw()

    def _draw(self) -> None:
        size = self._console.size
        with self._lock:
            frame = draw(View(self._progress, self._episode, size.width, size.height))
        self._live.update(frame, refresh=True)
