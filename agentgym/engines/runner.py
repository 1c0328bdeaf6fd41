"""Runs one forward pass of a transformers model over the slots: plans it, and hands back the logits asked for."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch

from agentgym.engines.attention import register
from agentgym.engines.cache import SlotCache
from agentgym.engines.fuse import fuse
from agentgym.engines.plan import Bucket, Ints, StepPlan, make_bucket, round_up
from agentgym.engines.slots import SlotTable
from agentgym.errors import ModelError

_KNOWN_LAYERS = {"full_attention", "sliding_attention"}
_DENSE = 0.6  # share of active rows from which running idle slots along costs less than gathering the active ones


class ModelRunner:
    """A model, its slot cache, and the packing of a step. Owns the model: its attention implementation is changed."""

    def __init__(self, model: Any, table: SlotTable, device: torch.device, prefill_tokens: int):
        check_model(model, table.max_context)
        self.table, self.device, self.prefill_tokens = table, device, prefill_tokens
        self.model = model.to(device).eval()
        self.model.set_attn_implementation(register())
        small = device.type == "cpu" and model.dtype == torch.float32
        self.refresh = fuse(self.model) if small else lambda: None
        self.cache = SlotCache(table.slots, table.max_context)
        self.vocab = int(model.get_input_embeddings().num_embeddings)
        self.prefilled = 0

    def step(self) -> tuple[Ints, torch.Tensor] | None:
        """Run all that is pending (context up to a budget); returns (slots, logits [n, vocab]) of those who sample."""
        table = self.table
        pending = np.where(table.running, table.total - table.cached, 0)
        decoding, joining = np.flatnonzero(pending == 1), np.flatnonzero(pending > 1)
        if not len(decoding) and not len(joining):
            return None
        joining, counts = self._within_budget(joining, pending)
        plan, last, slots = self._plan(decoding, joining, counts)
        logits = self._forward(plan, last)
        table.cached[decoding] += 1
        table.cached[joining] += counts
        self.prefilled += int(counts.sum())
        return slots, logits

    def _within_budget(self, joining: Ints, pending: Ints) -> tuple[Ints, Ints]:
        """The joining slots of this step and how many of their tokens it runs, shortest first, so that few pad."""
        joining = joining[np.argsort(pending[joining], kind="stable")]
        before = np.cumsum(pending[joining]) - pending[joining]
        counts = np.minimum(pending[joining], self.prefill_tokens - before)
        return joining[counts > 0], counts[counts > 0]

    def _plan(self, decoding: Ints, joining: Ints, counts: Ints) -> tuple[StepPlan, torch.Tensor | None, Ints]:
        """The plan, the packed indices whose logits are wanted (None: all), and the slots those belong to."""
        table = self.table
        rows, dense = self._decode_rows(decoding)
        scrap = np.zeros(len(rows), bool)
        if dense:
            scrap[:] = True
            scrap[decoding] = False
        at = np.where(scrap, 0, table.cached[rows])
        ids = [table.tokens[rows, at]]
        positions, slots, columns = [at], [rows], [np.where(scrap, self.cache.scrap, at)]
        starts = table.cached[joining]
        for slot, start, count in zip(joining.tolist(), starts.tolist(), counts.tolist(), strict=True):
            span = np.arange(start, start + count)
            ids.append(table.tokens[slot, start : start + count])
            positions.append(span)
            slots.append(np.full(count, slot))
            columns.append(span)
        plan = StepPlan(
            input_ids=self._tensor(np.concatenate(ids)).unsqueeze(0),
            position_ids=self._tensor(np.concatenate(positions)).unsqueeze(0),
            write_slots=self._tensor(np.concatenate(slots)),
            write_columns=self._tensor(np.concatenate(columns)),
            decode=len(rows),
            decode_slots=None if dense else self._tensor(rows),
            decode_at=self._tensor(at),
            decode_keys=min(round_up(int(at.max()) + 1), self.cache.columns) if len(rows) else 0,
            buckets=self._buckets(len(rows), joining, starts, counts),
        )
        done = starts + counts == table.total[joining]
        ends = len(rows) - 1 + np.cumsum(counts)
        wanted = np.concatenate((np.flatnonzero(~scrap), ends[done]))
        everything = len(wanted) == plan.input_ids.shape[1]
        return plan, None if everything else self._tensor(wanted), np.concatenate((rows[~scrap], joining[done]))

    def _decode_rows(self, decoding: Ints) -> tuple[Ints, bool]:
        """The rows of the decode part: the slots up to the last active one where most are active, else only those."""
        if len(decoding):
            prefix = int(decoding[-1]) + 1
            if len(decoding) >= _DENSE * prefix:
                return np.arange(prefix), True
        return decoding, False

    def _buckets(self, first: int, joining: Ints, starts: Ints, counts: Ints) -> list[Bucket]:
        """Cut the joining sequences (sorted by new tokens) where padding to the longest would waste a third."""
        buckets: list[Bucket] = []
        low = 0
        for high in range(1, len(joining) + 1):
            if high < len(joining) and counts[high] * (high + 1 - low) <= 1.5 * counts[low : high + 1].sum() + 64:
                continue
            part = slice(low, high)
            buckets.append(
                make_bucket(first, joining[part], starts[part], counts[part], self.cache.columns, self.device)
            )
            first, low = first + int(counts[part].sum()), high
        return buckets

    def _forward(self, plan: StepPlan, last: torch.Tensor | None) -> torch.Tensor:
        self.cache.plan = plan
        out = self.model(
            input_ids=plan.input_ids,
            position_ids=plan.position_ids,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=0 if last is None else last,
            slot_plan=plan,
        )
        logits: torch.Tensor = out.logits[0]
        return logits

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
