"""Leak: after many resets, most of them in the middle of an episode, nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

from agentgym.envs.validate.bench import Bench, run
from agentgym.envs.validate.explore import call_with, calling
from agentgym.envs.validate.finding import Finding
from agentgym.tools.driving import drive_on_loop
from agentgym.types import Message

PATIENCE = 5.0
"""Seconds that what is ending may take to end."""


def check(bench: Bench) -> Finding:
    """Counts open files, processes, threads, tasks of the event loop and sandboxes before and after."""
    cycles = 5 if bench.heavy else 30
    _abandon(bench, 3)  # pools and threads that are made once
    before = _settled({})
    _abandon(bench, cycles)
    after = _settled(before)
    grown = {name: after[name] - before[name] for name in before if after[name] - before[name] > cycles // 2}
    figures = {"resets": cycles, "before": before, "after": after}
    if grown:
        told = ", ".join(f"{count} {name} more" for name, count in grown.items())
        return Finding(False, f"after {cycles} resets: {told}", figures)
    return Finding(True, "", figures)


def _abandon(bench: Bench, cycles: int) -> None:
    """Start episodes and leave them: reset again, or close the env; every tool is called once before."""
    calls = [call_with(schema, "1") for schema in bench.schemas]
    for i in range(cycles):
        case = bench.few[i % len(bench.few)]
        env = bench.env if i % 3 else bench.env.fresh() if hasattr(bench.env, "fresh") else bench.env
        run(env, env.areset(seed=case.seed, options=case.options))
        run(env, env.astep(calling(*calls) if calls and i % 3 != 1 else Message("assistant", "")))
        if env is not bench.env:
            run(env, env.aclose())
    run(bench.env, bench.env.aclose())


def _settled(before: dict[str, int]) -> dict[str, int]:
    """The counts, once they are no more than `before` or no longer fall."""
    deadline = time.monotonic() + PATIENCE
    now = _counts()
    while any(now[name] > count for name, count in before.items()) and time.monotonic() < deadline:
        time.sleep(0.05)
        now = _counts()
    return now


def _counts() -> dict[str, int]:
    counted = {"threads": threading.active_count(), "tasks": drive_on_loop(_tasks())}
    if Path("/proc/self/fd").is_dir():
        counted |= {"open files": len(os.listdir("/proc/self/fd")), "processes": _descendants()}
    return {**counted, "sandboxes": drive_on_loop(_sandboxes())}


async def _tasks() -> int:
    return len(asyncio.all_tasks())


async def _sandboxes() -> int:
    """Sandboxes lent on the background loop."""
    from agentgym.sandboxes.backends import lent

    return lent()


def _descendants() -> int:
    """Processes that this one has started, theirs too, the dead that nobody has waited for among them."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found, row = 0, [os.getpid()]
    while row:
        row = [child for parent in row for child in parents.get(parent, [])]
        found += len(row)
    return found
