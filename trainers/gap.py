"""The gap between the engine's logprobs and the learner's, recomputed with exactly the version that sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from agentgym.trainers.batch import Row
from agentgym.trainers.learner import Learner
from agentgym.trainers.policy import Build
from agentgym.trainers.routing import unknown

ROWS = 16
"""Sequences that are looked at."""


class GapProbe:
    """Keeps the last published weights and compares logprobs on a few sequences of one version each."""

    def __init__(self, learner: Learner, *, keep: int, rows: int = ROWS):
        build = Build(routing_replay=learner.build.routing_replay)
        self._learner = Learner(learner.bare(), learner.options, learner.device, build)
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
        for version in list(self._versions):
            mine = [row for row in rows if _single_version(row) == version][: self._rows]
            if mine:
                found.append(self._compare(mine, self.at(version)))
        self.largest = max(self.largest, *found, 0.0)
        return max(found, default=None)

    def at(self, version: int) -> Learner:
        """A learner with the weights of `version`, which has to be one of those kept."""
        _load(self._learner.model, self._versions[version])
        return self._learner

    def keeps(self, version: int) -> bool:
        return version in self._versions

    def _compare(self, rows: Sequence[Row], learner: Learner) -> float:
        gaps = np.concatenate(_gaps(rows, learner))
        self.tokens += len(gaps)
        return float(gaps.max(initial=0.0))


@dataclass(frozen=True, slots=True)
class ReplayGap:
    """What routing replay does for the gap: measured on a few rows with the experts that the engine told, and with
    those that the learner's routers choose themselves.

    Rows of one version, where the probe has its weights; else those sampled last, with the weights of the moment,
    whose own distance from those that sampled is then in both figures.
    """

    probe: GapProbe | None = None
    rows: int = ROWS

    def __call__(self, rows: Sequence[Row], learner: Learner) -> dict[str, float]:
        """`gap` (mean) and `gap_max` with the engine's experts, `own_gap` and `own_gap_max` without, and the share of
        all `told` tokens; nothing where the engine told none."""
        told = [row for row in rows if row.experts is not None]
        if not told:
            return {"routing_replay/told": 0.0}
        exact = [row for row in told if (v := _single_version(row)) is not None and self.probe and self.probe.keeps(v)]
        newest = max((int(row.versions[row.mask > 0].max(initial=-1)) for row in exact or told), default=-1)
        mine = [row for row in exact or told if (row.versions[row.mask > 0] == newest).any()][: self.rows]
        if exact and self.probe:
            learner = self.probe.at(newest)
        replayed = np.concatenate([*_gaps(mine, learner), np.zeros(0)])
        own = np.concatenate([*_gaps([replace(row, experts=None) for row in mine], learner), np.zeros(0)])
        figures = {"told": _told(rows)}
        for name, gaps in (("gap", replayed), ("own_gap", own)):
            if len(gaps):
                figures |= {name: float(gaps.mean()), f"{name}_max": float(gaps.max())}
        return {f"routing_replay/{name}": value for name, value in figures.items()}


def _gaps(rows: Sequence[Row], learner: Learner) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    """|engine - learner| of each row's trained tokens."""
    return [
        np.abs(logprobs - row.logprobs)[row.mask > 0]
        for row, logprobs in zip(rows, learner.logprobs(rows), strict=True)
    ]


def _told(rows: Sequence[Row]) -> float:
    """The share of tokens whose experts are known, of those that another follows."""
    known = 0
    for row in rows:
        if row.experts is not None:
            known += int((row.experts[:-1, 0, 0] != unknown(row.experts.dtype)).sum())
    return known / max(1, sum(len(row.ids) - 1 for row in rows))


def _single_version(row: Row) -> int | None:
    versions = np.unique(row.versions[row.mask > 0])
    return int(versions[0]) if len(versions) == 1 else None


def _load(model: Any, weights: Mapping[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
