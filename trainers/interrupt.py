"""Ctrl-C that ends a run cleanly: the first asks, the second insists."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Interrupt:
    """Remembers that SIGINT or SIGTERM came. Only the main thread can listen; elsewhere it never fires."""

    def __init__(self) -> None:
        self.requested = False
        self._former: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def check(self) -> None:
        """Raise `KeyboardInterrupt` where it is safe to stop."""
        if self.requested:
            raise KeyboardInterrupt

    def close(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}
