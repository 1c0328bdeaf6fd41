"""Servers that one `ServerHost` holds: of our own, started again and again, or another's, found at its URL."""

from __future__ import annotations

import threading
from pathlib import Path

from agentgym.engines.sglang.process import START_SECONDS, ServerCommand, ServerProcess
from agentgym.errors import EngineFault


class OwnServer:
    """Implements `host.Startable`. Each start has a port of its own unless `port` is given: what is still sent to the
    former one meets nobody, and not a server that has yet to get its weights."""

    def __init__(self, command: ServerCommand, model: str, log: Path, *, port: int = 0, timeout: float = START_SECONDS):
        self._command, self._model, self._log, self._port, self._timeout = command, model, log, port, timeout
        self._lock = threading.Lock()
        self._closed = False
        self._process: ServerProcess | None = None

    def start(self) -> str:
        with self._lock:
            if self._closed:
                raise EngineFault("the server is closed")
            if self._process is not None:
                self._process.close()
            self._process = process = ServerProcess(self._command, self._model, self._log, port=self._port)
        process.wait_ready(self._timeout)
        return process.url

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.alive

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    def close(self) -> None:
        """End it, also where it is being started."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.close()


class GivenServer:
    """Implements `host.Startable` for a server that is there; it can only be waited for."""

    alive = True
    pid = 0

    def __init__(self, url: str):
        self._url = url

    def start(self) -> str:
        return self._url

    def close(self) -> None:
        """It is another's."""
