"""Runs probes against a backend, one after the other: what they attempt must not meet what others attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from agentgym.errors import ConfigError, SandboxUnavailable
from agentgym.protocols import SandboxBackend
from agentgym.sandboxes.backends import BACKENDS
from agentgym.sandboxes.probes import files, grading, kernel, lifecycle, network, processes, resources
from agentgym.sandboxes.probes.acts import Act, Probe, Stage
from agentgym.sandboxes.probes.host import Host
from agentgym.sandboxes.probes.rows import Finding, Row, Seen, row

CATALOGUE: tuple[Probe, ...] = tuple(
    sorted(
        (
            probe
            for module in (files, processes, network, kernel, resources, lifecycle, grading)
            for probe in module.PROBES
        ),
        key=lambda probe: probe.number,
    )
)
MOST_SECONDS = 120.0
"""Of one act, both sides: longer is an act that hung."""


async def run_probes(
    backend: SandboxBackend,
    *,
    name: str = "",
    options: Mapping[str, Any] | None = None,
    only: Collection[int] = (),
    on_row: Callable[[Row], None] | None = None,
) -> list[Row]:
    """A row for each probe (`only`: of these numbers), as each ends also given to `on_row`.

    name, options: with which `make_backend` makes another like it; without a name, that of its class is taken where it
    has one.
    Raises `SandboxUnavailable` where the backend makes no sandbox here, `ConfigError` for a number that is no probe.
    """
    chosen = select(only)
    if backend.capabilities.isolation == "memory":
        raise ConfigError("this backend runs no code: there is nothing to probe")
    rows = []
    async with Host() as host:
        stage = Stage(backend, host, name or _name(backend), options or {})
        async with stage.sandbox():
            pass  # says at once where there can be none
        for probe in chosen:
            rows.append(row(probe.number, probe.name, [await _run(act, stage) for act in probe.acts]))
            if on_row is not None:
                on_row(rows[-1])
    return rows


def select(only: Collection[int]) -> Iterable[Probe]:
    """The probes of these numbers; all where there are none."""
    if unknown := set(only) - {probe.number for probe in CATALOGUE}:
        raise ConfigError(f"there is no probe {min(unknown)}; they go from 1 to {CATALOGUE[-1].number}")
    return [probe for probe in CATALOGUE if not only or probe.number in only]


async def _run(act: Act, stage: Stage) -> Finding:
    """An act's finding; where the machinery fails or hangs, that is what was found."""
    try:
        async with asyncio.timeout(MOST_SECONDS):
            return await act.run(stage)
    except SandboxUnavailable:
        raise
    except TimeoutError:
        return Finding(act.name, Seen("escaped", f"no end within {MOST_SECONDS:g} s"), Seen("na", "not reached"))
    except Exception as e:
        return Finding(act.name, Seen("broken", f"{type(e).__name__}: {e}"[:200]), Seen("na", "not reached"))


def _name(backend: SandboxBackend) -> str:
    made = type(backend)
    for name, path in BACKENDS.items():
        if path.rpartition(":")[2] == made.__name__ and made.__module__.startswith(path.partition(":")[0]):
            return name
    return ""
