"""The keys and values of every slot, in the shape transformers' attention layers expect of a cache."""

from __future__ import annotations

import torch

from agentgym.engines.plan import StepPlan


class SlotCache:
    """One key and one value buffer per layer, [slots, kv_heads, columns, head_dim], made when a layer first writes.

    Passed to a model as `past_key_values`. `update` writes the new tokens of a step where its plan says and hands back
    the whole buffers; the attention function reads what the plan lets each row see. The last column is scrap: rows
    that only pad a batch write there.
    """

    is_compileable = False

    def __init__(self, slots: int, max_context: int):
        self.slots = slots
        self.columns = -(-(max_context + 1) // 16) * 16
        self.scrap = self.columns - 1
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self.plan: StepPlan | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write states [1, kv_heads, tokens, head_dim] of this step's tokens; returns the layer's whole buffers."""
        while len(self.keys) <= layer_idx:
            self.keys.append(self._buffer(key_states))
            self.values.append(self._buffer(value_states))
        assert self.plan is not None
        slots, columns = self.plan.write_slots, self.plan.write_columns
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        keys[slots, :, columns] = key_states[0].transpose(0, 1)
        values[slots, :, columns] = value_states[0].transpose(0, 1)
        return keys, values

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Give slot `target` the first `length` columns of slot `source`."""
        for buffer in (*self.keys, *self.values):
            buffer[target, :, :length] = buffer[source, :, :length]

    def clear(self) -> None:
        """Forget everything, so that a NaN that got in cannot come back through a masked column."""
        self.keys.clear()
        self.values.clear()

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0  # positions are always given; nothing may be derived from a common length

    def _buffer(self, like: torch.Tensor) -> torch.Tensor:
        shape = (self.slots, like.shape[1], self.columns, like.shape[3])
        return torch.zeros(shape, dtype=like.dtype, device=like.device)
