"""The backend that the tests are run on: the local one, or AGENTGYM_SANDBOX_BACKEND=docker, e2b, path.py:Class.

The local one is skipped where a machine cannot run it, with its own reason; one that was asked for has to run.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from agentgym.errors import SandboxUnavailable
from agentgym.execution import SandboxLimits, SandboxSpec
from agentgym.protocols import SandboxBackend
from agentgym.sandboxes import make_backend

T = TypeVar("T")
CHOSEN = os.environ.get("AGENTGYM_SANDBOX_BACKEND", "")
IMAGE = os.environ.get("AGENTGYM_TEST_IMAGE", "python:3.11-slim")
OPTIONS: dict[str, dict[str, Any]] = {"local": {"warm": 1}, "docker": {"warm": 1, "image": IMAGE}}
SMALL = SandboxSpec(SandboxLimits(memory=96 << 20, processes=16, disk=8 << 20, output=2000, timeout=20.0))


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.fixture(scope="module")
def run(loop: asyncio.AbstractEventLoop) -> Callable[[Coroutine[Any, Any, T]], T]:
    return loop.run_until_complete


@pytest.fixture(scope="module")
def backend(run: Callable[..., Any]) -> Iterator[SandboxBackend]:
    made = make_backend(CHOSEN or "local", **OPTIONS.get(CHOSEN or "local", {}))
    try:
        run(run(made.create(SMALL)).close())
    except SandboxUnavailable as e:
        if CHOSEN:
            raise
        pytest.skip(f"no local sandbox on this machine: {e}")
    yield made
    run(made.aclose())


@pytest.fixture(scope="module")
def local_only() -> None:
    if CHOSEN not in ("", "local"):
        pytest.skip(f"of the local backend; this run is of {CHOSEN}")


@pytest.fixture(scope="module")
def docker_only() -> None:
    if CHOSEN != "docker":
        pytest.skip("needs AGENTGYM_SANDBOX_BACKEND=docker (make test-docker)")


@pytest.fixture
def sandbox(backend: SandboxBackend, run: Callable[..., Any]) -> Iterator[Any]:
    made = run(backend.create(SMALL))
    yield made
    run(made.close())


@pytest.fixture
def spec() -> SandboxSpec:
    return SMALL


@pytest.fixture(scope="module")
def client(docker_only: None) -> Any:
    """Docker's own, for what a backend does not tell."""
    import docker

    return docker.APIClient(version="auto", **docker.utils.kwargs_from_env())
