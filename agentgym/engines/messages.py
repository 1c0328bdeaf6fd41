"""What crosses the pipe between a `ProcessEngine` and its process. One message is a list of these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from agentgym.types import Completion, Ids, SamplingParams
from agentgym.weights import WeightUpdate


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
    layout: Mapping[str, Any]
    """As `segment.Layout`."""


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
    stats: Mapping[str, float]


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
