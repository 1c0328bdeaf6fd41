"""New weights on their way from the learner to engines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class WeightProof:
    """By what an engine in another process shows which weights it runs; made by the learner, of its own tensors.

    `digests`: for each parameter, under the name that servers give it, the checksums that are right. Where a server's
    checksums cannot be compared (sharded, quantised, on a GPU), the `logprobs` [T - 1] of the tokens `ids[1:]` are.
    """

    digests: Mapping[str, tuple[str, ...]]
    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    tolerance: float = 1e-3
    """Largest difference of a logprob, in nats."""


@dataclass(frozen=True, slots=True)
class WeightSender:
    """Where a learner waits to broadcast its weights: a control port that only those with the key may talk to."""

    host: str
    port: int
    key: str


@dataclass(frozen=True, slots=True)
class WeightUpdate:
    """New weights for an engine: named tensors (`full` or `adapter`), the folder they lie in, or who broadcasts them.

    `handles`: the tensors as a GPU's shared memory, for an engine on the same GPU (one serialized list a bucket).
    """

    version: int
    kind: Literal["full", "adapter"] = "full"
    tensors: Mapping[str, Any] | None = None
    path: str | None = None
    sender: WeightSender | None = None
    handles: tuple[str, ...] = ()
    proof: WeightProof | None = None
