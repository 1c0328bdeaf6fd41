"""What code writes, as it arrives in pieces: the beginning is kept, the rest is counted."""

from __future__ import annotations

from agentgym.sandboxes.output import cut

FLOOD = 64 << 20


class Flood(Exception):
    """More than is let through."""


class Gathered:
    """One stream of a call; `most`: bytes at which it is broken off with `Flood` (None: never)."""

    def __init__(self, limit: int, most: int | None = None):
        self._limit = limit
        self._most = most
        self._kept = bytearray()
        self._size = 0

    def add(self, text: str) -> None:
        data = text.encode(errors="replace")
        self._size += len(data)
        if len(self._kept) <= self._limit:
            self._kept += data[: self._limit + 1]
        if self._most is not None and self._size > self._most:
            raise Flood(f"it wrote more than {self._most} bytes")

    def told(self) -> tuple[str, bool]:
        return cut(bytes(self._kept), self._limit, self._size)
