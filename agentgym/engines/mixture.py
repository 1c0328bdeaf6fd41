"""How many experts a model has, and how many of them a token is sent to. Read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

KEY = "learner.routing_replay"
_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")


@dataclass(frozen=True, slots=True)
class Mixture:
    """`chosen` of `experts` for each token, in some or all of `layers`."""

    layers: int
    experts: int
    chosen: int

    @property
    def dtype(self) -> type[np.unsignedinteger[Any]]:
        """Of `types.Experts`."""
        return np.uint8 if self.experts <= np.iinfo(np.uint8).max else np.uint16


def mixture_of(config: Mapping[str, Any]) -> Mixture | None:
    """By a transformers configuration as a dict; None for a dense model."""
    text = config.get("text_config") or config
    experts = next((int(text[name]) for name in _COUNTS if text.get(name)), 0)
    chosen = int(text.get("num_experts_per_tok") or 0)
    return Mixture(int(text["num_hidden_layers"]), experts, chosen) if experts and chosen else None
