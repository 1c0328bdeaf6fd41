"""One process's way to another: messages into a pipe, from a thread of their own."""

from __future__ import annotations

import queue
import threading
import traceback
from typing import Any


class Outbox:
    """`put` never waits: while a driver learns it reads nothing, and play is to go on."""

    def __init__(self, pipe: Any):
        self._pipe = pipe
        self._waiting: queue.SimpleQueue[tuple[str, Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def put(self, kind: str, payload: Any) -> None:
        self._waiting.put((kind, payload))

    def flush(self) -> None:
        """Wait until everything is sent or the other side has closed its end. Nothing can be put afterwards."""
        self._waiting.put(None)
        self._thread.join()

    def _send(self) -> None:
        while (message := self._waiting.get()) is not None:
            try:
                self._pipe.send(message)
            except OSError:
                return  # nobody reads any more
            except Exception:  # it cannot be pickled: nothing of it was sent
                self._pipe.send(("failed", traceback.format_exc()))
