"""The connection to a Docker engine: the SDK's blocking calls in threads, its failures as ours."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from agentgym.errors import SandboxFault, SandboxUnavailable

T = TypeVar("T")
THREADS = 16
CALL_SECONDS = 120
REMEDIES = """What helps, any one of:
  - start it: systemctl start docker (on a desktop: Docker Desktop)
  - say where it is: DOCKER_HOST=unix:///path/docker.sock (of a `docker context`: see `docker context inspect`)
  - may you use it? Your user has to be in the group "docker" (usermod -aG docker $USER, then log in again)
  - another backend: local or e2b"""


class Engine:
    """Connects at the first use; `close` ends it. `host`: as in DOCKER_HOST, which it is where none is given."""

    def __init__(self, host: str | None = None):
        self.host = host
        self._client: Any = None
        self._connecting = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

    @property
    def client(self) -> Any:
        """The SDK's `APIClient`; raises `SandboxUnavailable`. Blocks."""
        with self._connecting:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> Any:
        docker = load_sdk()
        with self.errors("the Docker engine cannot be used"):
            given = docker.utils.kwargs_from_env()
            if self.host is not None:
                given = {"base_url": self.host}
            where = str(given.get("base_url", ""))
            if given.get("tls") or where.startswith(("https://", "ssh://", "npipe://")):
                raise SandboxUnavailable(
                    f"the docker sandbox speaks to unix:// and tcp:// without TLS, not {where}; forward the socket: "
                    "ssh -N -L /tmp/docker.sock:/var/run/docker.sock HOST, and DOCKER_HOST=unix:///tmp/docker.sock"
                )
            made = docker.APIClient(version="auto", timeout=CALL_SECONDS, max_pool_size=THREADS, **given)
            # no proxy leads to the engine; and to look for one, requests would walk os.environ in our threads
            made.trust_env = False
            made.ping()
            return made

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Run a blocking call in a thread of the engine's; the loop that asks may end before it does."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, "agentgym-docker")
        return self._threads.submit(work)

    async def run(self, work: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self.submit(work))

    @contextlib.contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """Turn what the SDK raises into `SandboxFault`, and an engine that does not answer into what to do about it."""
        docker = load_sdk()
        try:
            yield
        except docker.errors.APIError as e:
            raise SandboxFault(f"{what}: {e.explanation or e}") from e
        except (docker.errors.DockerException, *connection_errors()) as e:
            where = f" at {self.host}" if self.host else ""
            raise SandboxUnavailable(f"{what}: no Docker engine answers{where} ({e})\n{REMEDIES}") from e

    def settle(self) -> None:
        """Wait for the calls under way. Blocks."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=True)

    def close(self) -> None:
        """Wait for the calls under way and hang up. Blocks."""
        self.settle()
        client, self._client = self._client, None
        if client is not None:
            client.close()


def load_sdk() -> Any:
    try:
        import docker
    except ImportError:
        raise SandboxUnavailable(
            "the docker sandbox needs the docker package: pip install 'agentgym-train[docker]'"
        ) from None
    return docker


def connection_errors() -> tuple[type[Exception], ...]:
    import requests

    return (requests.exceptions.RequestException, OSError)
