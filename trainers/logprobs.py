"""Log-probabilities of chosen tokens without ever holding all logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from agentgym.engines.lm_head import adjusted
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
    chosen = token_states(model, micro)
    targets = micro.ids[:, 1:][micro.mask[:, 1:]]  # [N]
    return chosen_logprobs(model, chosen, targets, temperature, entropy_grad=entropy_grad)


def token_states(model: Any, micro: Micro) -> torch.Tensor:
    """The last hidden states [N, H] that predict the masked tokens, in row-major order."""
    packed: dict[str, Any] = {} if micro.positions is None else {"position_ids": micro.positions}
    if micro.stacks is not None:
        packed["stacks"] = micro.stacks
    if micro.experts is not None:
        packed["routing"] = Follow(micro.experts)
    hidden = model.base_model(input_ids=micro.ids, use_cache=False, **packed).last_hidden_state
    ahead = micro.mask[:, 1:]  # a row's first token is never masked: what is before it in a packed row is not used
    chosen: torch.Tensor = hidden[:, :-1][ahead]
    return chosen


def chosen_logprobs(
    model: Any, hidden: torch.Tensor, targets: torch.Tensor, temperature: float, *, entropy_grad: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """hidden [N, H] and targets [N] -> logprobs and entropies [N], a chunk of logits at a time."""
    head = model.get_output_embeddings()
    rows = max(1, CHUNK_ELEMENTS // head.weight.shape[0])
    scores = Scores(model, temperature, entropy_grad)
    if len(targets) <= rows:
        return scores(head(hidden), targets)
    if _plain(head, hidden):
        apply: Any = _Chunks.apply
        found: tuple[torch.Tensor, torch.Tensor] = apply(hidden, head.weight, head.bias, targets, rows, scores)
        return found
    parts = [
        checkpoint(lambda h, t: scores(head(h), t), h, t, use_reentrant=False)
        for h, t in zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)
    ]
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


@dataclass(frozen=True, slots=True)
class Scores:
    """What comes out of the head's layer [n, V] and targets [n] -> logprobs and entropies [n]."""

    model: Any
    temperature: float
    entropy_grad: bool

    def __call__(self, out: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = adjusted(self.model, out).float() / self.temperature
        logprobs = torch.log_softmax(logits, dim=-1)
        picked = logprobs.gather(1, targets[:, None]).squeeze(1).clone()  # no view: sharding hooks into it
        if self.entropy_grad and torch.is_grad_enabled():
            return picked, -(logprobs.exp() * logprobs).sum(-1)
        with torch.no_grad():  # in place: it is the most that is held at once
            return picked, -logprobs.exp().mul_(logprobs).sum(-1)


def _plain(head: Any, hidden: torch.Tensor) -> bool:
    """Whether the layer is a product with a matrix that is here as it is, and no more."""
    if type(head) is not torch.nn.Linear or head._forward_hooks or head._forward_pre_hooks:
        return False
    sharded = hasattr(head.weight, "to_local")
    return not sharded and head.weight.dtype == hidden.dtype and not torch.is_autocast_enabled(hidden.device.type)


class _Chunks(torch.autograd.Function):
    """The head and `Scores`, chunk by chunk, forward and, computed again, backward.

    Autograd would make a gradient of the whole matrix for each chunk, and hold a few: with 150k words and 1,024 numbers
    a word each is as large as the logits of 1,024 tokens. Here all chunks add to one, which is the matrix's own where
    it has one already.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        rows: int,
        scores: Scores,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.rows, ctx.scores = rows, scores
        parts = [
            scores(functional.linear(h, weight, bias), t)
            for h, t in zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)
        ]
        picked, entropy = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
        if not scores.entropy_grad:
            ctx.mark_non_differentiable(entropy)
        return picked, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_picked: torch.Tensor, of_entropy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, bias, targets = ctx.saved_tensors
        of_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        of_weight, kept = _gradient_of(weight) if ctx.needs_input_grad[1] else (None, False)
        of_bias = torch.zeros_like(bias) if ctx.needs_input_grad[2] else None
        for start in range(0, len(targets), ctx.rows):
            part = slice(start, start + ctx.rows)
            of_out = _of_out(ctx.scores, hidden[part], weight, bias, targets[part], of_picked[part], of_entropy[part])
            if of_hidden is not None:
                torch.mm(of_out, weight, out=of_hidden[part])
            if of_weight is not None:
                of_weight.addmm_(of_out.T, hidden[part])
            if of_bias is not None:
                of_bias += of_out.sum(0)
            del of_out  # not beside the next
        return of_hidden, None if kept else of_weight, of_bias, None, None, None


def _of_out(
    scores: Scores,
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    of_picked: torch.Tensor,
    of_entropy: torch.Tensor,
) -> torch.Tensor:
    """The gradient of what comes out of the head's layer, [n, V]."""
    out = functional.linear(hidden, weight, bias).requires_grad_()
    with torch.enable_grad():
        picked, entropy = scores(out, targets)
    if scores.entropy_grad:
        return torch.autograd.grad([picked, entropy], out, [of_picked, of_entropy])[0]
    return torch.autograd.grad(picked, out, of_picked)[0]


def _gradient_of(weight: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """What is to be added to, and whether that is the gradient that `weight` has from former passes: there would be a
    second matrix else, for the sum. Not where somebody waits for what autograd brings (`torch.autograd.grad` on the
    head's matrix would get nothing then)."""
    awaited = weight._backward_hooks or weight._post_accumulate_grad_hooks
    if weight.is_leaf and weight.grad is not None and weight.grad.dtype == weight.dtype and not awaited:
        return weight.grad, True
    return torch.zeros_like(weight), False
