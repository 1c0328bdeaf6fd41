"""Log-probabilities of chosen tokens without ever holding all logits."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from agentgym.engines.lm_head import head_logits

CHUNK_ELEMENTS = 1 << 24
"""Logits held at once (64 MiB in fp32)."""


def token_logprobs(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, temperature: float, *, entropy_grad: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """log p(ids[t] | ids[:t]) at `temperature` where mask is true, and the entropy there (with a gradient if asked).

    ids [B, L] int64 and mask [B, L] bool, right-padded, mask[:, 0] false -> two fp32 tensors [N], N = mask.sum(), in
    row-major order. Only hidden states that predict a masked token reach the head, in chunks that are recomputed in
    the backward pass.
    """
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    chosen = hidden[:, :-1][mask[:, 1:]]  # [N, H]
    targets = ids[:, 1:][mask[:, 1:]]  # [N]
    vocabulary = model.get_output_embeddings().weight.shape[0]
    rows = max(1, CHUNK_ELEMENTS // vocabulary)
    if len(targets) <= rows:
        return _chunk(model, chosen, targets, temperature, entropy_grad)
    parts = [
        checkpoint(_chunk, model, h, t, temperature, entropy_grad, use_reentrant=False)
        for h, t in zip(torch.split(chosen, rows), torch.split(targets, rows), strict=True)
    ]
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


def _chunk(
    model: Any, hidden: torch.Tensor, targets: torch.Tensor, temperature: float, entropy_grad: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = head_logits(model, hidden).float() / temperature
    logprobs = torch.log_softmax(logits, dim=-1)
    picked = logprobs.gather(1, targets[:, None]).squeeze(1)
    with torch.set_grad_enabled(entropy_grad and torch.is_grad_enabled()):
        entropy = -(logprobs.exp() * logprobs).sum(-1)
    return picked, entropy
