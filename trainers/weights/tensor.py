"""Weights by a GPU's own memory: handles to the learner's tensors for a server on the same GPU. Nothing is copied
between processes; the server copies from the learner's memory into its own.

What it leaves out: servers whose weights are sharded over GPUs that the learner is not on.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from multiprocessing.reduction import ForkingPickler

import torch
import torch.multiprocessing  # teaches ForkingPickler to hand over CUDA tensors

from agentgym.trainers.weights.buckets import buckets_of
from agentgym.trainers.weights.proof import Prover, checksums_only
from agentgym.weights import WeightUpdate


class TensorSync:
    """Implements `protocols.WeightSync` for a learner and servers that share a GPU; the tensors must stay as they are
    until the update is done (`Rollouts.update` waits for it)."""

    def __init__(self, *, bucket_bytes: int, prove: Prover = checksums_only):
        self._limit, self._prove = bucket_bytes, prove

    def publish(self, version: int, tensors: Mapping[str, torch.Tensor]) -> WeightUpdate:
        handles = [
            _serialized([(name, tensors[name].detach()) for name in bucket.names])
            for bucket in buckets_of(tensors, self._limit)
        ]
        return WeightUpdate(version, "full", handles=tuple(handles), proof=self._prove(tensors))

    def close(self) -> None:
        """Nothing is held."""


def _serialized(named: list[tuple[str, torch.Tensor]]) -> str:
    """As SGLang's serializer writes them: a pickle of CUDA IPC handles, in base64."""
    buffer = io.BytesIO()
    ForkingPickler(buffer).dump(named)
    return base64.b64encode(buffer.getvalue()).decode()
