"""Lets ordinary code that runs event loops of its own be called inside a running one, as notebooks have it."""

from __future__ import annotations

from asyncio.events import _get_running_loop, _set_running_loop
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def outside_event_loop() -> Iterator[None]:
    """Inside, this thread looks as if no loop ran, so that `asyncio.run` works; the loop itself waits meanwhile."""
    outer = _get_running_loop()
    _set_running_loop(None)
    try:
        yield
    finally:
        _set_running_loop(outer)
