"""Waiting for a file descriptor on whichever event loop runs: no object here belongs to a loop."""

from __future__ import annotations

import asyncio


async def readable(fd: int) -> None:
    """Return once `fd` can be read (for a pidfd: once its process has ended)."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def told() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(fd, told)
    try:
        await ready
    finally:
        loop.remove_reader(fd)
