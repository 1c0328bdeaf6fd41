"""N server processes: started together, one started anew where it died, all ended together.

It knows no event loop, so that anything can hold one: a rollout worker, or an actor on another machine.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from agentgym.engines.sglang.process import END_SECONDS, START_SECONDS, ServerCommand, ServerProcess


class Supervisor:
    """Servers of `model`, one for each of `commands`; their output goes to `logs`/server-N.log.

    port: of the first, the others follow; 0: any that are free. Raises `ConfigError` for a port in use, `EngineFault`
    with the end of a server's log where it does not come up; then none is left running.
    """

    def __init__(
        self,
        commands: Sequence[ServerCommand],
        model: str,
        logs: Path,
        *,
        port: int = 0,
        timeout: float = START_SECONDS,
    ):
        self._timeout = timeout
        self._lock = threading.Lock()
        self._closed = False
        self.servers: list[ServerProcess] = []
        try:
            for i, command in enumerate(commands):
                place = port + i if port else 0
                self.servers.append(ServerProcess(command, model, logs / f"server-{i}.log", port=place))
            with ThreadPoolExecutor(len(self.servers)) as pool:
                list(pool.map(lambda server: server.wait_ready(timeout), self.servers))
        except BaseException:
            self.close()
            raise

    @property
    def urls(self) -> list[str]:
        return [server.url for server in self.servers]

    def alive(self, index: int) -> bool:
        return self.servers[index].alive

    def restart(self, index: int) -> None:
        """End what is left of the server, start it anew at the same address, wait until it answers."""
        with self._lock:
            if self._closed:
                return
            old = self.servers[index]
            old.close()
            new = ServerProcess(old.command, old.model, old.log, port=old.port)
            self.servers[index] = new
        new.wait_ready(self._timeout)

    def close(self) -> None:
        """End every server; again does nothing."""
        with self._lock:
            self._closed = True
        for server in self.servers:
            server.signal_end()
        deadline = time.monotonic() + END_SECONDS
        for server in self.servers:
            server.close(max(0.0, deadline - time.monotonic()))
