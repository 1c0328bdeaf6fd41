"""A model's step recorded once and replayed without Python: for a small model that is most of its time.

A recording is derived from the library's own forward and holds for all sizes. It is used only after it gave the same
logits as the forward on later, differently shaped steps; a model whose forward depends on its data (torch says so while
recording, as for experts that are looped over) or whose recording fails is simply run as it is.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from agentgym.engines.cache import SlotCache, StepCache
from agentgym.engines.plan import Part, StepPlan, Window

_jit: Any = torch.jit  # deprecated without a successor for this: without it, models are simply run as they are
Kind = tuple[str, ...]
_WAIT = 2  # steps of a kind before it is recorded: short lives are not worth it
_PROOFS = 2


class StepModel(nn.Module):
    """A step of `model` as a function of tensors alone: the plan's, its masks, and the cache's buffers."""

    def __init__(self, model: nn.Module, kind: Kind, windows: tuple[Window, ...], layers: int):
        super().__init__()
        self.model, self.kind, self.windows, self.layers = model, kind, windows, layers

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        feed = list(tensors)
        input_ids, position_ids, slots, columns, last = feed[:5]
        keys, values = feed[-2 * self.layers : -self.layers], feed[-self.layers :]
        feed = feed[5 : -2 * self.layers]
        parts: list[Part] = []
        for kind in self.kind:
            where = feed.pop(0) if kind != "all" else None
            gather, scatter = (feed.pop(0), feed.pop(0)) if kind == "join" else (None, None)
            masks = {window: feed.pop(0) for window in self.windows}
            parts.append(Part(where, None, 0, gather, scatter, masks))
        plan = StepPlan(input_ids, position_ids, slots, columns, last, parts)
        return run_model(self.model, plan, StepCache(plan, keys, values, None))


def flatten(plan: StepPlan, windows: tuple[Window, ...], cache: SlotCache) -> tuple[torch.Tensor, ...]:
    """The arguments of a `StepModel` for this plan."""
    feed = [plan.input_ids, plan.position_ids, plan.write_slots, plan.write_columns, plan.last]
    for part in plan.parts:
        feed += [tensor for tensor in (part.slots, part.gather, part.scatter) if tensor is not None]
        feed += [part.mask(window, cache.keys[0].dtype) for window in windows]
    return (*feed, *cache.keys, *cache.values)


def run_model(model: Any, plan: StepPlan, cache: StepCache) -> torch.Tensor:
    """The library's forward; logits [n, vocab] of the plan's `last` tokens."""
    out = model(
        input_ids=plan.input_ids,
        position_ids=plan.position_ids,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=plan.last,
        slot_plan=plan,
    )
    logits: torch.Tensor = out.logits[0]
    return logits


class Recordings:
    """The recordings of one model, by the kind of step."""

    def __init__(self, model: nn.Module, cache: SlotCache):
        self._model, self._cache = model, cache
        self._seen: dict[Kind, int] = {}
        self._steps: dict[Kind, Any] = {}
        self._proofs: dict[Kind, int] = {}
        self._windows: tuple[Window, ...] = ()
        self.refused: str | None = None
        """Why this model is not replayed; None while it is."""

    def run(self, plan: StepPlan) -> torch.Tensor:
        """Logits of a step, replayed where that is proven right."""
        kind = plan.kind
        if self.refused is not None or kind.count("join") > 1:
            return self._plain(plan)
        if kind not in self._steps:
            logits = self._plain(plan)
            self._seen[kind] = self._seen.get(kind, 0) + 1
            if self._seen[kind] > _WAIT:
                self._record(plan)
            return logits
        feed = flatten(plan, self._windows, self._cache)
        if self._proofs[kind] < _PROOFS:
            return self._prove(plan, feed)
        return self._replay(kind, feed)

    def _plain(self, plan: StepPlan) -> torch.Tensor:
        return run_model(self._model, plan, StepCache(plan, self._cache.keys, self._cache.values, self._cache))

    def _replay(self, kind: Kind, feed: tuple[torch.Tensor, ...]) -> torch.Tensor:
        # without the optimising executor: it would specialise on shapes that change with every step
        with _jit.optimized_execution(False):
            logits: torch.Tensor = self._steps[kind](*feed)
        return logits

    def _record(self, plan: StepPlan) -> None:
        # the forward just run asked for exactly the masks that the model's layers need
        self._windows = tuple(plan.parts[0].masks)
        step = StepModel(self._model, plan.kind, self._windows, len(self._cache.keys))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                warnings.simplefilter("error", _jit.TracerWarning)
                self._steps[plan.kind] = _jit.trace(step, flatten(plan, self._windows, self._cache), check_trace=False)
        except Exception as e:
            self.refused = f"{type(e).__name__}: {e}"
        self._proofs[plan.kind] = 0

    def _prove(self, plan: StepPlan, feed: tuple[torch.Tensor, ...]) -> torch.Tensor:
        expected = self._plain(plan)
        try:
            got = self._replay(plan.kind, feed)
        except Exception as e:
            self.refused = f"{type(e).__name__}: {e}"
            return expected
        scale = float(expected.abs().max())
        if got.shape != expected.shape or not torch.allclose(got, expected, rtol=0, atol=1e-4 * max(scale, 1.0)):
            self.refused = "a replayed step differs from the forward"
        self._proofs[plan.kind] += 1
        return expected
