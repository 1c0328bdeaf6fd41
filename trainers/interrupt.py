"""Ctrl-C that ends a run cleanly: the first asks, the second insists."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class Interrupt:
    """Remembers that SIGINT or SIGTERM came, once a run has something to save; before that they stop it at once.

    `told` is called, in a thread of its own, when the stop is put off, with the name of what came ("Ctrl-C"). Only the
    main thread can listen; elsewhere it never fires.
    """

    def __init__(self, told: Callable[[str], None] = lambda how: None) -> None:
        self.requested = False
        self._told = told
        self._graceful = False
        self._former: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._handle)

    def put_off(self) -> None:
        """From now on the first interrupt waits for `check`."""
        self._graceful = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested or not self._graceful:
            raise KeyboardInterrupt
        self.requested = True
        # the main thread may be in the midst of writing to the terminal, which cannot be entered twice
        how = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        threading.Thread(target=self._told, args=(how,), daemon=True).start()

    def check(self) -> None:
        """Raise `KeyboardInterrupt` where it is safe to stop."""
        if self.requested:
            raise KeyboardInterrupt

    def close(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}
