"""How fast a backend is here: new sessions, calls of a session, and ends of what does not want to end."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from agentgym.errors import SandboxFault
from agentgym.execution import SandboxLimits, SandboxSpec
from agentgym.protocols import SandboxBackend
from agentgym.sandboxes.cpu import COUNTED, counting, cpu
from agentgym.sandboxes.probes.host import gone, tagged
from agentgym.sandboxes.probes.inside import program
from agentgym.sandboxes.probes.lifecycle import DAEMON, DEAF, HANG
from agentgym.sandboxes.probes.resources import BREED

ENDS = {
    "loop that ignores signals": DEAF,
    "hang in C": HANG,
    "fork bomb": BREED.replace("GENERATIONS", "7"),
    "daemon": DAEMON,
}
SPEC = SandboxSpec(SandboxLimits(processes=32, timeout=60.0))
GONE_SECONDS = 20.0


async def bench(
    backend: SandboxBackend,
    *,
    sessions: int = 100,
    calls: int = 2000,
    ends: int = 10,
    note: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """{"session", "exec", "end"}; wall times in milliseconds as p50, p99 and most, CPU in milliseconds an operation."""
    await (await backend.create(SPEC)).close()  # the zygote, or whatever takes its time once, is there
    how = counting(backend.capabilities.isolation)
    note(f"{sessions} sessions")
    made = await _sessions(backend, sessions, how)
    note(f"{calls} calls")
    called = await _calls(backend, calls, how)
    ended = {}
    for name, code in ENDS.items():
        note(f"ends: {name}")
        ended[name] = times([await _end(backend, code) for _ in range(ends)])
    return {"session": made, "exec": called, "end": ended, "cpu_counted": COUNTED[how]}


def times(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p99 and most, in milliseconds."""
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return {"p50": _ms(statistics.median(ordered)), "p99": _ms(p99), "most": _ms(ordered[-1])}


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)


async def _sessions(backend: SandboxBackend, count: int, how: str) -> dict[str, Any]:
    created, closed = [], []
    began, used = time.perf_counter(), cpu(how)
    for _ in range(count):
        start = time.perf_counter()
        box = await backend.create(SPEC)
        created.append(time.perf_counter() - start)
        start = time.perf_counter()
        await box.close()
        closed.append(time.perf_counter() - start)
    wall = time.perf_counter() - began
    return {
        "create_ms": times(created),
        "close_ms": times(closed),
        "cpu_ms": _ms((cpu(how) - used) / count),
        "per_s": round(count / wall, 1),
    }


async def _calls(backend: SandboxBackend, count: int, how: str) -> dict[str, Any]:
    box = await backend.create(SPEC)
    try:
        for _ in range(20):
            await box.exec("x = 1 + 1")
        took = []
        began, used = time.perf_counter(), cpu(how)
        for _ in range(count):
            start = time.perf_counter()
            await box.exec("x = 1 + 1")
            took.append(time.perf_counter() - start)
        wall, spent = time.perf_counter() - began, cpu(how) - used
    finally:
        await box.close()
    return {"call_ms": times(took), "cpu_ms": _ms(spent / count), "per_s": round(count / wall, 1)}


async def _end(backend: SandboxBackend, code: str) -> float:
    """Seconds from `close` until nothing is left of what runs."""
    tag = f"b{secrets.token_hex(5)}"
    box = await backend.create(SPEC)
    running = asyncio.create_task(box.exec(program(code, {"tag": tag}), timeout=60))
    waited = time.monotonic() + 10
    while not tagged(tag) and time.monotonic() < waited and backend.capabilities.isolation != "vm":
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    began = time.perf_counter()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    with contextlib.suppress(SandboxFault):
        await box.close()
    if not await gone(tag, GONE_SECONDS):
        raise SandboxFault(f"something lives on {GONE_SECONDS:g} s after its end")
    return time.perf_counter() - began
