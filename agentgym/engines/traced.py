"""A model's step recorded once and replayed without Python: for a small model that is most of its time.

A recording is derived from the library's own forward and holds for all sizes. It is used only after it did the same as
the forward on made-up steps of other sizes. A model whose forward depends on its data (torch says so while recording,
as for experts that are looped over) or whose recording fails is simply run as it is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch

from agentgym.engines.cache import SlotCache, StepCache
from agentgym.engines.plan import Part, StepPlan, Window
from agentgym.engines.trial import PROVE, RECORD, Sizes, trial_cache, trial_plan

_jit: Any = torch.jit  # deprecated without a successor for this: without it, models are simply run as they are
Kind = tuple[str, ...]
_WAIT = 2  # steps of a kind before it is recorded: short lives are not worth it
_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.02, torch.float16: 0.004}
"""Of the largest number compared: the kernels are the same, only their fusion and order of rounding may differ."""


def step_function(model: Any, kind: Kind, windows: tuple[Window, ...], layers: int) -> Callable[..., torch.Tensor]:
    """A step of `model` as a function of tensors alone: the plan's, its masks, and the cache's buffers (`flatten`)."""

    def step(*tensors: torch.Tensor) -> torch.Tensor:
        feed = list(tensors)
        input_ids, position_ids, slots, columns, last = feed[:5]
        keys, values = feed[-2 * layers : -layers], feed[-layers:]
        feed = feed[5 : -2 * layers]
        parts: list[Part] = []
        for name in kind:
            where = feed.pop(0) if name != "all" else None
            gather, scatter = (feed.pop(0), feed.pop(0)) if name == "join" else (None, None)
            masks = {window: feed.pop(0) for window in windows}
            parts.append(Part(where, None, 0, gather, scatter, masks))
        plan = StepPlan(input_ids, position_ids, slots, columns, last, parts)
        return run_model(model, plan, StepCache(plan, keys, values, None))

    return step


def flatten(plan: StepPlan, windows: tuple[Window, ...], cache: SlotCache) -> tuple[torch.Tensor, ...]:
    """The arguments of a `step_function` for this plan."""
    feed = [plan.input_ids, plan.position_ids, plan.write_slots, plan.write_columns, plan.last]
    for part in plan.parts:
        feed += [tensor for tensor in (part.slots, part.gather, part.scatter) if tensor is not None]
        feed += [part.mask(window, cache.keys[0].dtype) for window in windows]
    return (*feed, *cache.keys, *cache.values)


def run_model(model: Any, plan: StepPlan, cache: StepCache, **more: Any) -> torch.Tensor:
    """The library's forward; logits [n, vocab] of the plan's `last` tokens."""
    out = model(
        input_ids=plan.input_ids,
        position_ids=plan.position_ids,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=plan.last,
        slot_plan=plan,
        **more,
    )
    logits: torch.Tensor = out.logits[0]
    return logits


class Recordings:
    """The recordings of one model, by the kind of step."""

    def __init__(self, model: Any, cache: SlotCache):
        self._model, self._cache = model, cache
        self._vocab = int(model.get_input_embeddings().num_embeddings)
        self._seen: dict[Kind, int] = {}
        self._steps: dict[Kind, Any] = {}
        self.refused: str | None = None
        """Why this model is not replayed; None while it is."""

    @property
    def kinds(self) -> set[Kind]:
        """The kinds of step that are replayed."""
        return set(self._steps) if self.refused is None else set()

    def run(self, plan: StepPlan) -> torch.Tensor:
        """Logits of a step, replayed where that is proven right."""
        kind = plan.kind
        if self.refused is not None or kind.count("join") > 1:
            return self._plain(plan)
        if kind in self._steps:
            try:
                return self._replay(self._steps[kind], plan, self._cache)
            except RuntimeError as e:
                self.refused = f"{type(e).__name__}: {e}"
                return self._plain(plan)  # what was written is written again
        logits = self._plain(plan)
        self._seen[kind] = self._seen.get(kind, 0) + 1
        if self._seen[kind] > _WAIT and bool(torch.isfinite(logits).all()):
            # the forward just run asked for exactly the masks that the model's layers need
            self._windows: tuple[Window, ...] = tuple(plan.parts[0].masks)
            self._record(kind)
        return logits

    def _plain(self, plan: StepPlan, cache: SlotCache | None = None) -> torch.Tensor:
        cache = cache or self._cache
        return run_model(self._model, plan, StepCache(plan, cache.keys, cache.values, cache))

    def _replay(self, step: Any, plan: StepPlan, cache: SlotCache) -> torch.Tensor:
        # without the optimising executor: it would specialise on shapes that change with every step
        with _jit.optimized_execution(False):
            logits: torch.Tensor = step(*flatten(plan, self._windows, cache))
        return logits

    def _record(self, kind: Kind) -> None:
        """Record this kind of step and keep it if it is proven; else no step of this model is recorded again."""
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                plan, cache = self._trial(kind, RECORD)
                function = step_function(self._model, kind, self._windows, len(cache.keys))
                step = _jit.trace(function, flatten(plan, self._windows, cache), check_trace=False)
            doubts = [str(w.message) for w in caught if issubclass(w.category, _jit.TracerWarning)]
            self.refused = doubts[0] if doubts else self._disprove(step, kind)
        except Exception as e:
            self.refused = f"{type(e).__name__}: {e}"
        if self.refused is None:
            self._steps[kind] = step

    def _disprove(self, step: Any, kind: Kind) -> str | None:
        """Compare a recording with the forward on steps of other sizes: the logits, and what was written."""
        for sizes in PROVE:
            plan, mine = self._trial(kind, sizes)
            _, theirs = self._trial(kind, sizes)
            got, expected = self._replay(step, plan, mine), self._plain(plan, theirs)
            pairs = [(got, expected), *zip(mine.keys + mine.values, theirs.keys + theirs.values, strict=True)]
            for a, b in pairs:
                bound = _TOLERANCE[a.dtype] * max(float(b.abs().max()), 1.0)
                if a.shape != b.shape or not torch.allclose(a, b, rtol=0, atol=bound):
                    return f"replayed steps of kind {kind} differ from the forward"
        return None

    def _trial(self, kind: Kind, sizes: Sizes) -> tuple[StepPlan, SlotCache]:
        plan = trial_plan(kind, sizes, self._vocab, self._cache.keys[0].device)
        return plan, trial_cache(self._cache, sizes.decode)
