"""The experts that the routers of a mixture choose: written down, or chosen for them.

Routers are of many kinds in transformers, and each ends in one `torch.topk` over its layer's experts; what it does with
the scores before and with the chosen ones after is its own. So that one call is what is looked for, within the blocks:
there the choice can be seen, and another one given. Scores are taken from where the router has them, so that weights
are normalised as the architecture does it, and the gradient reaches the router. Whether it is so in a model at hand is
tried (`routes`). Nothing is different in a forward pass that is given no `routing`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from agentgym.engines.blocks import blocks_of
from agentgym.engines.mixture import Mixture, mixture_of
from agentgym.types import Experts

_TOPK = (torch.topk, torch.Tensor.topk)


class Routing(Protocol):
    """What is given to a model's forward as `routing`."""

    def choose(self, layer: int, scores: torch.Tensor, own: Any) -> Any:
        """The result of the router's `topk` over scores [tokens, experts]; `own` is what it chose itself."""
        ...


@dataclass(slots=True)
class Note:
    """Writes down what the routers choose."""

    seen: dict[int, torch.Tensor] = field(default_factory=dict)

    def choose(self, layer: int, scores: torch.Tensor, own: Any) -> Any:
        self.seen[layer] = own.indices
        return own

    def experts(self, mixture: Mixture) -> Experts:
        """Of the tokens that were run, in their order."""
        tokens = len(next(iter(self.seen.values())))
        found = np.zeros((tokens, mixture.layers, mixture.chosen), mixture.dtype)
        for layer, chosen in self.seen.items():
            found[:, layer] = chosen.cpu().numpy()
        return found


@dataclass(frozen=True, slots=True)
class Follow:
    """Chooses for the routers: `experts` [tokens, layers, chosen], -1 where the router chooses itself."""

    experts: torch.Tensor

    def choose(self, layer: int, scores: torch.Tensor, own: Any) -> Any:
        told = self.experts[:, layer]
        if told.shape != own.indices.shape:
            raise ValueError(f"experts {tuple(told.shape)} were told of a choice of {tuple(own.indices.shape)}")
        index = torch.where(told >= 0, told.long(), own.indices)
        return torch.return_types.topk((scores.gather(-1, index), index))


class _Choice(TorchFunctionMode):
    """Lets `routing` have its say in the one call that chooses."""

    def __init__(self, mixture: Mixture, layer: int, routing: Routing):
        super().__init__()
        self._mixture, self._layer, self._routing = mixture, layer, routing

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func not in _TOPK:
            return out
        scores = args[0] if args else (kwargs or {})["input"]
        mine = scores.ndim == 2 and scores.shape[1] == self._mixture.experts
        if not mine or out.indices.shape[1] != self._mixture.chosen:
            return out  # of groups of experts, as some routers choose first
        return self._routing.choose(self._layer, scores, out)


@functools.cache
def _tapped(kind: Any) -> Any:
    """The class of a block whose forward takes `routing`. It is a class and no hook, as blocks are computed again in a
    backward pass by their forward alone; and it holds nothing, so that copies of a model are models of their own."""

    def forward(self: Any, *args: Any, routing: Routing | None = None, **kwargs: Any) -> Any:
        if routing is None:
            return kind.forward(self, *args, **kwargs)
        mixture, layer = self.routed
        with _Choice(mixture, layer, routing):
            return kind.forward(self, *args, **kwargs)

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})


def tap(model: Any) -> Mixture | None:
    """Have a model's forward take `routing`; None, and nothing is done, for a model without experts."""
    mixture = mixture_of(model.config.to_dict())
    blocks: list[Any] = blocks_of(model)
    if mixture is None or len(blocks) != mixture.layers:
        return None
    for layer, block in enumerate(blocks):
        if not hasattr(block, "routed"):
            block.routed = mixture, layer
            kind: Any = type(block)
            block.__class__ = _tapped(kind)
    return mixture


@torch.no_grad()
def routes(model: Any, mixture: Mixture) -> bool:
    """Whether a tapped model does as it is told: told its own choice it is the same, told another it is not."""
    device, training = next(model.parameters()).device, model.training
    vocabulary = int(model.config.get_text_config().vocab_size)
    ids = torch.arange(1, 8, device=device)[None] * 7919 % vocabulary

    def hidden(routing: Routing) -> torch.Tensor:
        found: torch.Tensor = model.base_model(input_ids=ids, use_cache=False, routing=routing).last_hidden_state
        return found

    note = Note()
    model.eval()
    try:
        plain = hidden(note)
        own = torch.from_numpy(note.experts(mixture).astype(np.int16)).to(device)
        same, other = hidden(Follow(own)), hidden(Follow((own + 1) % mixture.experts))
    except (ValueError, TypeError, RuntimeError, KeyError, AttributeError, StopIteration):
        return False  # its forward cannot be called so, or no choice was seen
    finally:
        model.train(training)
    return torch.allclose(plain, same, atol=1e-5) and not torch.allclose(plain, other, atol=1e-5)
