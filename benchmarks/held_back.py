"""Runs whose tokens are all of one age: play has the weights of so many versions ago, and waits for the learner."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch

from agentgym.protocols import WeightSync
from agentgym.trainers import session
from agentgym.trainers.pipeline import Pipeline
from agentgym.weights import WeightUpdate


class HeldBack:
    """Publishes what was published `versions` ago, under its own version; what is published again is an evaluation's,
    which gets it as it is."""

    def __init__(self, inner: WeightSync, versions: int):
        self._inner = inner
        self._kept: deque[tuple[int, dict[str, torch.Tensor]]] = deque(maxlen=versions + 1)

    def publish(self, version: int, tensors: Mapping[str, torch.Tensor]) -> WeightUpdate:
        if self._kept and self._kept[-1][0] == version:
            return self._inner.publish(version, tensors)
        self._kept.append((version, {name: tensor.detach().clone() for name, tensor in tensors.items()}))
        return self._inner.publish(*self._kept[0])

    def close(self) -> None:
        self._inner.close()


@contextmanager
def held_back(versions: int) -> Iterator[None]:
    """Within it, runs that allow `rollout.max_staleness` = `versions` train on tokens that are exactly so old, once
    there are so old weights. Nothing is played ahead, which would make them older."""

    def in_turn(*given: Any, **options: Any) -> Pipeline:
        return Pipeline(*given, **{**options, "max_staleness": 0})

    make = session.make_sync
    with (
        patch.object(session, "Pipeline", in_turn),
        patch.object(session, "make_sync", lambda *given: HeldBack(make(*given), versions)),
    ):
        yield
