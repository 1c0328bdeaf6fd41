"""Log-probabilities of chosen tokens without ever holding all logits."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from agentgym.engines.lm_head import head_logits
from agentgym.engines.routing import Follow
from agentgym.trainers.micro import Micro

CHUNK_ELEMENTS = 1 << 24
"""Logits held at once (64 MiB in fp32)."""


def token_logprobs(
    model: Any, micro: Micro, temperature: float, *, entropy_grad: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """log p(ids[t] | what precedes it in its row) at `temperature` where the mask is true, and the entropy there (with
    a gradient if asked).

    Two fp32 tensors [N], N = mask.sum(), in row-major order. Only hidden states that predict a masked token reach the
    head, in chunks that are recomputed in the backward pass.
    """
    packed: dict[str, Any] = {} if micro.positions is None else {"position_ids": micro.positions}
    if micro.stacks is not None:
        packed["stacks"] = micro.stacks
    if micro.experts is not None:
        packed["routing"] = Follow(micro.experts)
    hidden = model.base_model(input_ids=micro.ids, use_cache=False, **packed).last_hidden_state
    ahead = micro.mask[:, 1:]  # a row's first token is never masked: what is before it in a packed row is not used
    chosen = hidden[:, :-1][ahead]  # [N, H]
    targets = micro.ids[:, 1:][ahead]  # [N]
    return chosen_logprobs(model, chosen, targets, temperature, entropy_grad=entropy_grad)


def chosen_logprobs(
    model: Any, hidden: torch.Tensor, targets: torch.Tensor, temperature: float, *, entropy_grad: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """hidden [N, H] and targets [N] -> logprobs and entropies [N], a chunk of logits at a time."""
    vocabulary = model.get_output_embeddings().weight.shape[0]
    rows = max(1, CHUNK_ELEMENTS // vocabulary)
    if len(targets) <= rows:
        return _chunk(model, hidden, targets, temperature, entropy_grad)
    parts = [
        checkpoint(_chunk, model, h, t, temperature, entropy_grad, use_reentrant=False)
        for h, t in zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)
    ]
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


def _chunk(
    model: Any, hidden: torch.Tensor, targets: torch.Tensor, temperature: float, entropy_grad: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = head_logits(model, hidden).float() / temperature
    logprobs = torch.log_softmax(logits, dim=-1)
    picked = logprobs.gather(1, targets[:, None]).squeeze(1).clone()  # no view: sharding hooks into it
    with torch.set_grad_enabled(entropy_grad and torch.is_grad_enabled()):
        entropy = -(logprobs.exp() * logprobs).sum(-1)
    return picked, entropy
