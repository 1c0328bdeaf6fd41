"""Backends for the tests; those that this machine cannot run are skipped with their own reason."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from agentgym.errors import SandboxUnavailable
from agentgym.execution import SandboxLimits, SandboxSpec
from agentgym.sandboxes.local import LocalBackend

T = TypeVar("T")
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
def backend(run: Callable[..., Any]) -> Iterator[LocalBackend]:
    made = LocalBackend(warm=1)
    try:
        run(run(made.create(SMALL)).close())
    except SandboxUnavailable as e:
        pytest.skip(f"no local sandbox on this machine: {e}")
    yield made
    run(made.aclose())


@pytest.fixture
def sandbox(backend: LocalBackend, run: Callable[..., Any]) -> Iterator[Any]:
    made = run(backend.create(SMALL))
    yield made
    run(made.close())


@pytest.fixture
def spec() -> SandboxSpec:
    return SMALL
