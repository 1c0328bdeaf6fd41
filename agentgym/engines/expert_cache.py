"""The experts that the tokens of every slot were sent to, beside their keys and values."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from agentgym.engines.cache import SlotCache, StepCache
from agentgym.engines.mixture import KEY
from agentgym.engines.plan import StepPlan
from agentgym.engines.routing import Note, routes, tap
from agentgym.engines.traced import run_model
from agentgym.errors import ModelError
from agentgym.types import Experts


class ExpertCache:
    """Numbers of experts, [slots, columns, layers, chosen]; as valid as the keys and values of the same columns.

    Raises `ModelError` for a model whose choice cannot be seen.
    """

    def __init__(self, model: Any, slots: int, max_context: int):
        mixture = tap(model)
        if mixture is None or not routes(model, mixture):
            what = "has no experts" if mixture is None else "chooses its experts in a way that cannot be seen"
            raise ModelError(f"{KEY}: {type(model).__name__} {what}; set it to false")
        self._mixture = mixture
        columns = SlotCache(slots, max_context).columns
        self._chosen: Experts = np.zeros((slots, columns, mixture.layers, mixture.chosen), mixture.dtype)

    def run(self, model: Any, plan: StepPlan, cache: SlotCache) -> torch.Tensor:
        """A step's logits. It is never replayed from a recording, which would choose without being seen."""
        note = Note()
        logits = run_model(model, plan, StepCache(plan, cache.keys, cache.values, cache), routing=note)
        where = plan.write_slots.cpu().numpy(), plan.write_columns.cpu().numpy()
        self._chosen[where] = note.experts(self._mixture)
        return logits

    def copy(self, source: int, target: int, first: int, end: int) -> None:
        self._chosen[target, first:end] = self._chosen[source, first:end]

    def read(self, slot: int, first: int, end: int) -> Experts:
        """Of the tokens [first, end) of a slot."""
        return self._chosen[slot, first:end].copy()
