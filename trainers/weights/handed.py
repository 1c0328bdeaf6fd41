"""Weights as they are, for engines that are given tensors: whoever updates them sees how the tensors get there."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from agentgym.trainers.weights.names import Named, as_they_are
from agentgym.trainers.weights.proof import Prover, checksums_only
from agentgym.weights import WeightUpdate


class HandedSync:
    """Implements `protocols.WeightSync` where machines share no file system: Ray's object store carries the tensors,
    and each server's own machine writes the folder that it reads. Nothing is copied here; the tensors must stay as they
    are until the update is done (`Rollouts.update` waits for it)."""

    def __init__(self, prove: Prover = checksums_only, named: Named = as_they_are):
        self._prove, self._named = prove, named

    def publish(self, version: int, tensors: Mapping[str, torch.Tensor]) -> WeightUpdate:
        return WeightUpdate(version, "full", dict(self._named(tensors)), proof=self._prove(tensors))

    def close(self) -> None:
        """Nothing is held."""
