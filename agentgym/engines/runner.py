"""Runs one forward pass of a transformers model over the slots: plans it, and hands back the logits asked for."""

from __future__ import annotations

import inspect
import time
from typing import Any

import numpy as np
import torch

from agentgym.engines.attention import register
from agentgym.engines.cache import SlotCache
from agentgym.engines.expert_cache import ExpertCache
from agentgym.engines.fuse import fuse
from agentgym.engines.plan import Ints, Part, StepPlan, join, round_up
from agentgym.engines.slots import SlotTable
from agentgym.engines.traced import Recordings
from agentgym.errors import ModelError

_KNOWN_LAYERS = {"full_attention", "sliding_attention"}
_DENSE = 0.6  # share of active rows from which running idle slots along costs less than gathering the active ones
_SLACK = 256  # padded tokens that cost less than another round of attention


class ModelRunner:
    """A model, its slot cache, and the packing of a step. Owns the model: its attention implementation is changed.

    routing: keep which experts each token was sent to (`experts`).
    """

    def __init__(
        self, model: Any, table: SlotTable, device: torch.device, prefill_tokens: int, *, routing: bool = False
    ):
        check_model(model, table.max_context)
        self.table, self.device, self.prefill_tokens = table, device, prefill_tokens
        self.model = model.to(device).eval().requires_grad_(False)
        self.experts = ExpertCache(self.model, table.slots, table.max_context) if routing else None
        self.model.set_attn_implementation(register())
        small = device.type == "cpu" and model.dtype == torch.float32
        self.refresh = fuse(self.model) if small else lambda: None
        self.cache = SlotCache(table.slots, table.max_context)
        table.copy = self._copy
        self.recordings = Recordings(self.model, self.cache)
        self.vocab = int(model.get_input_embeddings().num_embeddings)
        self.prefilled = 0
        self.pack_s = 0.0

    def step(self) -> tuple[Ints, torch.Tensor] | None:
        """Run all that is pending (context up to a budget); returns (slots, logits [n, vocab]) of those who sample."""
        began = time.thread_time()
        table = self.table
        pending = np.where(table.running, table.total - table.cached, 0)
        decoding, joining = np.flatnonzero(pending == 1), np.flatnonzero(pending > 1)
        if not len(decoding) and not len(joining):
            return None
        joining, counts = self._within_budget(joining, pending)
        plan, slots = self._plan(decoding, joining, counts)
        self.pack_s += time.thread_time() - began
        logits = self.recordings.run(plan) if self.experts is None else self.experts.run(self.model, plan, self.cache)
        table.cached[decoding] += 1
        table.cached[joining] += counts
        self.prefilled += int(counts.sum())
        return slots, logits

    def _copy(self, source: int, target: int, first: int, end: int) -> None:
        """Give slot `target` what `source` has cached from `first` to `end`."""
        self.cache.copy(source, target, first, end)
        if self.experts is not None:
            self.experts.copy(source, target, first, end)

    def _within_budget(self, joining: Ints, pending: Ints) -> tuple[Ints, Ints]:
        """The joining slots of this step and how many of their tokens it runs, shortest first, so that few pad."""
        joining = joining[np.argsort(pending[joining], kind="stable")]
        before = np.cumsum(pending[joining]) - pending[joining]
        counts = np.minimum(pending[joining], self.prefill_tokens - before)
        return joining[counts > 0], counts[counts > 0]

    def _plan(self, decoding: Ints, joining: Ints, counts: Ints) -> tuple[StepPlan, Ints]:
        """The plan, and the slots that its `last` tokens belong to."""
        table = self.table
        rows, dense = self._decode_rows(decoding)
        idle = np.zeros(len(rows), bool)  # rows that only keep the others contiguous
        if dense:
            idle[:] = True
            idle[decoding] = False
        at = np.where(idle, 0, table.cached[rows])
        starts, total = table.cached[joining], int(counts.sum())
        ends = np.cumsum(counts)
        # sequence after sequence: 0, 1, ... of each, from its start on
        owner = np.repeat(joining, counts)
        span = np.arange(total) - np.repeat(ends - counts - starts, counts)
        slots, positions = np.concatenate((rows, owner)), np.concatenate((at, span))
        columns = np.concatenate((np.where(idle, self.cache.scrap, at), span))
        done = starts + counts == table.total[joining]
        last = np.concatenate((np.flatnonzero(~idle), len(rows) - 1 + ends[done]))
        plan = StepPlan(
            input_ids=self._tensor(table.tokens[slots, positions]).unsqueeze(0),
            position_ids=self._tensor(positions).unsqueeze(0),
            write_slots=self._tensor(slots),
            write_columns=self._tensor(columns),
            last=self._tensor(last),
            parts=self._joins(len(rows), joining, starts, counts),
        )
        if len(rows):
            keys = min(round_up(int(at.max()) + 1), self.cache.columns)
            plan.parts.insert(0, Part(None if dense else self._tensor(rows), self._tensor(at).unsqueeze(1), keys))
        return plan, np.concatenate((rows[~idle], joining[done]))

    def _decode_rows(self, decoding: Ints) -> tuple[Ints, bool]:
        """The rows of the decode part: the slots up to the last active one where most are active, else only those."""
        if len(decoding):
            prefix = int(decoding[-1]) + 1
            if len(decoding) >= _DENSE * prefix:
                return np.arange(prefix), True
        return decoding, False

    def _joins(self, first: int, joining: Ints, starts: Ints, counts: Ints) -> list[Part]:
        """Cut the joining sequences (sorted by new tokens) where padding to the longest would waste a third."""
        parts: list[Part] = []
        low = 0
        for high in range(1, len(joining) + 1):
            if high < len(joining) and counts[high] * (high + 1 - low) <= 1.5 * counts[low : high + 1].sum() + _SLACK:
                continue
            cut = slice(low, high)
            parts.append(join(first, joining[cut], starts[cut], counts[cut], self.cache.columns, self.device))
            first, low = first + int(counts[cut].sum()), high
        return parts

    def _tensor(self, array: Ints) -> torch.Tensor:
        return torch.from_numpy(array.astype(np.int64, copy=False)).to(self.device)


def check_model(model: Any, max_context: int) -> None:
    """Refuse what would run but be wrong; raises `ModelError`."""
    name, config = type(model).__name__, model.config.get_text_config()
    strange = sorted(set(getattr(config, "layer_types", None) or ()) - _KNOWN_LAYERS)
    if strange:
        raise ModelError(f"{name}: layers of type {', '.join(strange)} are not supported by the local engine")
    if not getattr(model, "_supports_attention_backend", False):
        raise ModelError(f"{name}: its attention cannot be exchanged, so the local engine cannot run it")
    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        raise ModelError(f"{name}: its forward has no logits_to_keep, so the local engine cannot run it")
    limit = getattr(config, "max_position_embeddings", None)
    if limit is not None and max_context > limit:
        raise ModelError(f"{name}: engine.max_context is {max_context}, but the model has {limit} positions; lower it")
    rope = getattr(config, "rope_parameters", None) or {}
    original = rope.get("original_max_position_embeddings", limit)
    if rope.get("rope_type") in ("dynamic", "longrope") and original is not None and max_context > original:
        # these change every position's rotation with the longest sequence of the batch
        raise ModelError(
            f"{name}: rope type {rope['rope_type']!r} beyond {original} positions ties a sequence to the others "
            f"of its batch; set engine.max_context to {original} or less"
        )
