"""What crosses the pipe between a `ProcessEngine` and its process. One message is a list of these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from typing import Any, Protocol

import torch

from agentgym.types import Completion, Ids, SamplingParams, WeightUpdate


class Channel(Protocol):
    """One end of a pipe, as `multiprocessing.connection.Connection`."""

    def send(self, message: Any, /) -> None: ...

    def recv(self) -> Any: ...

    def poll(self, timeout: float | None = ..., /) -> bool: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Generate:
    id: int
    ids: Ids
    params: SamplingParams
    session: str | None


@dataclass(frozen=True, slots=True)
class Cancel:
    id: int


@dataclass(frozen=True, slots=True)
class Release:
    session: str


@dataclass(frozen=True, slots=True)
class Mapped:
    """What is sent of a `Segment`."""

    name: str
    layout: Mapping[str, tuple[int, tuple[int, ...], torch.dtype]]


@dataclass(frozen=True, slots=True)
class Update:
    id: int
    update: WeightUpdate
    segment: Mapped | None = None
    """Where the tensors lie if `update` was sent without them."""


@dataclass(frozen=True, slots=True)
class Close:
    """The last message down."""


@dataclass(frozen=True, slots=True)
class Started:
    """The first message up, when the engine could be built."""

    version: int


@dataclass(frozen=True, slots=True)
class Refused:
    """An error, by the name of its class in `agentgym.errors` (EngineFault for all others), and its text."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The end of the request `id`: a completion, the version after an update, or an error."""

    id: int
    value: Completion | int | Refused


@dataclass(frozen=True, slots=True)
class Counters:
    stats: Mapping[str, float]


def view(memory: SharedMemory, offset: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """The tensor that lies at `offset` of a segment."""
    count = torch.Size(shape).numel()
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    buffer: Any = memory.buf
    return torch.frombuffer(buffer, dtype=dtype, count=count, offset=offset).view(shape)


class Segment:
    """Named tensors in one piece of shared memory, for an update that holds them in a plain dict.

    The sender makes it and unlinks it when the update was answered; the receiver maps it for as long as it copies.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor]):
        self.layout: dict[str, tuple[int, tuple[int, ...], torch.dtype]] = {}
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
