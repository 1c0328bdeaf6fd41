"""Named tensors in one piece of shared memory, for weight updates that hold them in a plain dict."""

from __future__ import annotations

from collections.abc import Mapping
from multiprocessing.shared_memory import SharedMemory
from typing import Any, TypeAlias

import torch

from agentgym.engines.messages import Mapped

Layout: TypeAlias = dict[str, tuple[int, tuple[int, ...], torch.dtype]]
"""name -> (offset in bytes, shape, dtype)"""


def view(memory: SharedMemory, offset: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """The tensor that lies at `offset` of a segment."""
    count = torch.Size(shape).numel()
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    buffer: Any = memory.buf
    return torch.frombuffer(buffer, dtype=dtype, count=count, offset=offset).view(shape)


class Segment:
    """The sender makes it and unlinks it when the update was answered; the receiver maps it while it copies."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]):
        self.layout: Layout = {}
        size = 0
        for name, tensor in tensors.items():
            self.layout[name] = (size, tuple(tensor.shape), tensor.dtype)
            size += -(-tensor.numel() * tensor.element_size() // 64) * 64
        self.memory = SharedMemory(create=True, size=max(size, 64))
        for name, tensor in tensors.items():
            view(self.memory, *self.layout[name]).copy_(tensor.detach())

    def unlink(self) -> None:
        self.memory.close()
        self.memory.unlink()

    def mapped(self) -> Mapped:
        return Mapped(self.memory.name, self.layout)
