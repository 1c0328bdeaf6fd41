"""Weights through shared memory: one segment, written by the learner, read by the engines of the same machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import torch

from agentgym.errors import ConfigError
from agentgym.weights import WeightUpdate

PLACE = "/dev/shm"
"""Where Linux keeps shared memory."""

Layout = dict[str, tuple[int, tuple[int, ...], torch.dtype]]
"""name -> (offset in bytes, shape, dtype)"""


class SharedTensors(Mapping[str, torch.Tensor]):
    """Named tensors that lie in a shared segment. Crossing a process boundary carries only the segment's name."""

    def __init__(self, memory: SharedMemory, layout: Layout):
        self._memory = memory
        self._layout = layout

    def __getitem__(self, name: str) -> torch.Tensor:
        offset, shape, dtype = self._layout[name]
        count = 1
        for size in shape:
            count *= size
        buffer: Any = self._memory.buf
        return torch.frombuffer(buffer, dtype=dtype, count=count, offset=offset).view(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._layout)

    def __len__(self) -> int:
        return len(self._layout)

    def __reduce__(self) -> tuple[Any, ...]:
        return _attach, (self._memory.name, self._layout)


_attached: dict[str, SharedMemory] = {}


def _attach(name: str, layout: Layout) -> SharedTensors:
    if name not in _attached:  # views may outlive the message: the segment stays mapped for the process's life
        _attached[name] = SharedMemory(name=name)
    return SharedTensors(_attached[name], layout)


class SharedMemorySync:
    """Publishes weights; a version must have been taken before the next is written (`Rollouts.update` waits).

    Raises `ConfigError` where there is no room for them: writing to memory that is not there kills the process.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor]):
        self._layout: Layout = {}
        offset = 0
        for name, tensor in tensors.items():
            self._layout[name] = (offset, tuple(tensor.shape), tensor.dtype)
            offset += -(-tensor.numel() * tensor.element_size() // 64) * 64  # aligned to cache lines
        _check_room(offset)
        self._memory = SharedMemory(create=True, size=max(64, offset))
        self._tensors = SharedTensors(self._memory, self._layout)

    def publish(self, version: int, tensors: Mapping[str, torch.Tensor]) -> WeightUpdate:
        with torch.no_grad():
            for name in self._layout:
                self._tensors[name].copy_(tensors[name])
        return WeightUpdate(version, "full", self._tensors)

    def close(self) -> None:
        with contextlib.suppress(BufferError):  # a view is still alive: the mapping goes with the process
            self._memory.close()
        self._memory.unlink()


def _check_room(size: int) -> None:
    try:
        found = os.statvfs(PLACE)
    except (OSError, AttributeError):  # another system
        return
    free = found.f_bavail * found.f_frsize
    if size > free:
        raise ConfigError(
            f"weights go to the engine through shared memory, {size / 2**20:,.0f} MiB of it, and {PLACE} has "
            f"{free / 2**20:,.0f} MiB left; give it more (of a container: --shm-size)"
        )
