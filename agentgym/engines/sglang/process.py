"""One server process: started, waited for, ended with all that it started. It never outlives the one that holds it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from agentgym.errors import ConfigError, EngineFault

START_SECONDS = 900.0
"""A CPU under load takes five minutes; a large model's weights take theirs."""
END_SECONDS = 3.0
"""What a server has to end by itself."""
LOCAL = "127.0.0.1"
"""Only this machine can talk to it there."""
TAIL = 12
"""Lines of its log that an error shows."""


@dataclass(frozen=True, slots=True)
class ServerCommand:
    """What to run: `arguments` are all but `--host`, `--port` and `--model-path`."""

    python: str
    launcher: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    host: str = LOCAL
    """Address of this machine that it listens on."""


class ServerProcess:
    """A server on `model` at `port` (0: any that is free), its output in `log`.

    Its process group is its own, and it holds a pipe of ours as standard input: it ends when this process does,
    however that ends.
    """

    def __init__(self, command: ServerCommand, model: str, log: Path, *, port: int = 0):
        self.command, self.model, self.log = command, model, log
        self.port = port or free_port(command.host)
        if port and not _is_free(command.host, port):
            raise ConfigError(f"engine.port = {port}: the port is in use; give another, or 0 for any that is free")
        self._process = self._start()

    @property
    def url(self) -> str:
        return f"http://{self.command.host}:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def wait_ready(self, timeout: float = START_SECONDS) -> None:
        """Until it answers that it is healthy; raises `EngineFault` with the end of its log where it does not."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if not self.alive:
                raise EngineFault(f"the SGLang server at {self.url} ended while it was starting:\n{self.tail()}")
            with contextlib.suppress(httpx.HTTPError):
                # unlike /health, /health_generate always samples a token
                answer = httpx.get(f"{self.url}/health_generate", timeout=20.0, trust_env=False)
                if answer.status_code == 404:
                    answer = httpx.get(f"{self.url}/health", timeout=20.0, trust_env=False)
                if answer.status_code == 200:
                    return
            time.sleep(0.1)
        self.close()
        raise EngineFault(f"the SGLang server at {self.url} was not ready within {timeout:g} s:\n{self.tail()}")

    def tail(self) -> str:
        """The last lines of its log, and where it lies."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        told = [line for line in lines if line.strip() and "leaked" not in line][-TAIL:]
        return "\n".join([*told, f"(the whole log: {self.log})"])

    def signal_end(self) -> None:
        """Ask it to end; `close` waits for that, and makes it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGTERM)

    def close(self, grace: float = END_SECONDS) -> None:
        """End it and all that it started, by force after `grace` seconds; again does nothing."""
        self.signal_end()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # its children too, when it ended before them
        self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def _start(self) -> subprocess.Popen[bytes]:
        command = self.command
        self.log.parent.mkdir(parents=True, exist_ok=True)
        place = ("--model-path", self.model, "--host", command.host, "--port", str(self.port))
        words: Sequence[str] = (command.python, command.launcher, *place, *command.arguments)
        with self.log.open("ab") as output:
            return subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **command.environment},
                start_new_session=True,
            )


def free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
