"""What an engine counted since it was made."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(slots=True)
class EngineStats:
    """Counters. Seconds are those of steps (packing, forward and sampling): wall clock, and CPU, with torch's threads
    where it has more than one."""

    tokens: int = 0
    """Tokens sampled."""
    prefill_tokens: int = 0
    """Context tokens that were run through the model."""
    cached_tokens: int = 0
    """Context tokens that were found in a cache instead."""
    steps: int = 0
    """Forward passes."""
    wall_s: float = 0.0
    cpu_s: float = 0.0
    pack_s: float = 0.0
    """What of `cpu_s` is no model compute: deciding what runs in a step, and laying out its tensors."""
    cache_hits: int = 0
    """Requests that found part of their context in a cache."""
    evictions: int = 0
    """Idle sessions that lost their slot to another."""
    running: int = 0
    """Requests in a slot now."""
    waiting: int = 0
    """Requests without a slot now."""

    def row(self) -> dict[str, float]:
        """The counters by name."""
        return asdict(self)
