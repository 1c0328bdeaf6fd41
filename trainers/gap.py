"""The gap between the engine's logprobs and the learner's, recomputed with exactly the version that sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from agentgym.trainers.batch import Row
from agentgym.trainers.learner import Learner


class GapProbe:
    """Keeps the last published weights and compares logprobs on a few sequences of one version each."""

    def __init__(self, learner: Learner, *, keep: int, rows: int = 16):
        self._learner = Learner(learner.bare(), learner.options, learner.device)
        self._keep = keep
        self._rows = rows
        self._versions: dict[int, dict[str, torch.Tensor]] = {}
        self.largest = 0.0
        self.tokens = 0

    def published(self, version: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """Remember these weights; older ones than the bound can need are forgotten."""
        self._versions[version] = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        for old in [v for v in self._versions if v <= version - self._keep]:
            del self._versions[old]

    def check(self, rows: Sequence[Row]) -> float | None:
        """The largest |engine - learner| over some single-version rows of this batch; None where there are none."""
        found: list[float] = []
        for version, weights in self._versions.items():
            mine = [row for row in rows if _single_version(row) == version][: self._rows]
            if mine:
                _load(self._learner.model, weights)
                found.append(self._compare(mine))
        self.largest = max(self.largest, *found, 0.0)
        return max(found, default=None)

    def _compare(self, rows: Sequence[Row]) -> float:
        worst = 0.0
        for row, logprobs in zip(rows, self._learner.logprobs(rows), strict=True):
            mine = row.mask > 0
            self.tokens += int(mine.sum())
            worst = max(worst, float(np.abs(logprobs[mine] - row.logprobs[mine]).max(initial=0.0)))
        return worst


def _single_version(row: Row) -> int | None:
    versions = np.unique(row.versions[row.mask > 0])
    return int(versions[0]) if len(versions) == 1 else None


def _load(model: Any, weights: Mapping[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
