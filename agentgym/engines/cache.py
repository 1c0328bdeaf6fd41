"""The keys and values of every slot, in the shape transformers' attention layers expect of a cache."""

from __future__ import annotations

import torch

from agentgym.engines.plan import StepPlan


class SlotCache:
    """One key and one value buffer per layer, [slots, kv_heads, columns, head_dim], made when a layer first writes.

    The last column is scrap: rows that only pad a batch write there.
    """

    def __init__(self, slots: int, max_context: int):
        self.slots = slots
        self.columns = -(-(max_context + 1) // 16) * 16
        self.scrap = self.columns - 1
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []

    def grow(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Make the buffers of all layers up to `layer`, shaped after states [1, kv_heads, tokens, head_dim]."""
        while len(self.keys) <= layer:
            for buffers, like in ((self.keys, keys), (self.values, values)):
                shape = (self.slots, like.shape[1], self.columns, like.shape[3])
                buffers.append(torch.zeros(shape, dtype=like.dtype, device=like.device))

    @torch.inference_mode()  # the buffers were made in it
    def copy(self, source: int, target: int, first: int, end: int) -> None:
        """Give slot `target` the columns [first, end) of slot `source`."""
        for buffer in (*self.keys, *self.values):
            buffer[target, :, first:end] = buffer[source, :, first:end]

    @torch.inference_mode()
    def clear(self) -> None:
        """Forget everything, so that a NaN that got in cannot come back through a masked column."""
        for buffer in (*self.keys, *self.values):
            buffer.zero_()


class StepCache:
    """A model's `past_key_values` during one step.

    `update` writes the step's new tokens where the plan says and hands back the whole buffers; the attention function
    reads of them what the plan lets each row see.
    """

    is_compileable = False

    def __init__(self, plan: StepPlan, keys: list[torch.Tensor], values: list[torch.Tensor], home: SlotCache | None):
        self._plan, self._keys, self._values, self._home = plan, keys, values, home

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write states [1, kv_heads, tokens, head_dim] of this step's tokens; returns the layer's whole buffers."""
        if self._home is not None:
            self._home.grow(layer_idx, key_states, value_states)
        keys, values = self._keys[layer_idx], self._values[layer_idx]
        slots, columns = self._plan.write_slots, self._plan.write_columns
        # index_put_ itself, as assignment by [...] would fix the number of tokens in a recorded step
        keys.transpose(1, 2).index_put_((slots, columns), key_states[0].transpose(0, 1))
        values.transpose(1, 2).index_put_((slots, columns), value_states[0].transpose(0, 1))
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0  # positions are always given; nothing may be derived from a common length
