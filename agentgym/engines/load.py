"""What an engine has to do at the moment, as far as it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Load:
    queued: int = 0
    """Requests that wait for others to end."""
    cache: float = 0.0
    """Share of its cache in use."""
    lost: int = 0
    """Sequences that have lost their cache to others, since the engine was made."""


async def load_of(engine: Any) -> Load:
    """By the engine's `load()`, or by its counters."""
    if hasattr(engine, "load"):
        found: Load = await engine.load()
        return found
    stats: Mapping[str, float] = getattr(engine, "stats", {})
    waiting, running = int(stats.get("waiting", 0)), stats.get("running", 0)
    slots = getattr(engine, "slots", 0)
    # of a local engine's requests some wait, while there are slots, for others to compute what they share
    queued = waiting if not slots or running >= slots else 0
    return Load(queued, 0.0, int(stats.get("evictions", 0)))
