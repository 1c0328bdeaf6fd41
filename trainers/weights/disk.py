"""Weights through a folder that learner and engines both see: one safetensors folder a version, whole or not there."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from agentgym.trainers.checkpoint import write_folder
from agentgym.trainers.weights.names import Named, as_they_are
from agentgym.trainers.weights.proof import Prover, checksums_only
from agentgym.weights import WeightUpdate

KEPT = 2
"""Versions that stay: an engine that is started anew may be reading the one before the last."""

BESIDE = (".json", ".jinja", ".model", ".txt")
"""What lies beside the weights: configuration and tokenizer."""


class DiskSync:
    """Implements `protocols.WeightSync`. `folder` is its own and goes with `close`; `model` is the folder whose
    configuration (all but weights) lies beside each version's, so that a server can be started on it; `named` gives
    weights the names of a checkpoint."""

    def __init__(self, folder: Path, model: str, prove: Prover = checksums_only, named: Named = as_they_are):
        self._folder, self._model, self._prove, self._named = folder, Path(model), prove, named
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.iterdir():  # by a run that was killed
            shutil.rmtree(left, ignore_errors=True)
        self._written: dict[int, WeightUpdate] = {}

    def publish(self, version: int, tensors: Mapping[str, torch.Tensor]) -> WeightUpdate:
        """Write the version and forget old ones; raises `RunError` where the disk is full, earlier ones intact."""
        proof = self._prove(tensors)
        before = self._written.get(version)
        if before is not None and before.proof is not None and before.proof.digests == proof.digests:
            return before
        final = self._folder / f"v{version:06d}"
        write_folder(final, lambda staging: self._fill(staging, tensors))
        self._written[version] = update = WeightUpdate(version, "full", path=str(final), proof=proof)
        for old in sorted(self._written)[:-KEPT]:
            shutil.rmtree(self._written.pop(old).path or "", ignore_errors=True)
        return update

    def _fill(self, staging: Path, tensors: Mapping[str, torch.Tensor]) -> None:
        from safetensors.torch import save_file

        staging.mkdir(parents=True)
        for file in self._model.iterdir() if self._model.is_dir() else ():
            if (
                file.is_file()
                and file.suffix in (".json", ".jinja", ".model", ".txt")
                and "safetensors" not in file.name
            ):
                shutil.copy(file, staging)
        whole = {name: tensor.detach().contiguous() for name, tensor in self._named(tensors).items()}
        save_file(whole, staging / "model.safetensors", metadata={"format": "pt"})

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
