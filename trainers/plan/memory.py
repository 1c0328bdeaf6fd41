"""Bytes on a learner's card, and on an engine's.

Learner: weights, gradients and optimizer state are numbers times bytes. Activations are what the blocks of a decoder
of Llama's shape (Qwen, Mistral: norm, attention with grouped heads, norm, gated MLP) keep for the backward pass,
counted operation by operation as transformers runs it without fused kernels; tests hold the sum against what is really
alive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from agentgym.config import Config
from agentgym.engines.cache import SlotCache
from agentgym.engines.size import cache_numbers, slots_within
from agentgym.trainers.logprobs import CHUNK_ELEMENTS
from agentgym.trainers.plan.layout import Layout
from agentgym.trainers.plan.model import Model
from agentgym.trainers.plan.words import GIB

LOGIT_BYTES = 16
"""Of one logit in hand: it, scaled, its log-probability and its gradient, in fp32. The gradient of the head's matrix is
written where it is kept (`gradients`; of sharded weights `gathered`): there is no other of its size."""
STATIC_FRACTION = 0.88
"""Share of a card's memory that SGLang takes for weights and cache, where engine.server_args do not say it."""


@dataclass(frozen=True, slots=True)
class LearnerMemory:
    """Bytes on one rank, at their highest."""

    weights: int
    """In fp32; frozen ones, beside adapters, in the type that is computed in."""
    gradients: int
    optimizer: int
    reference: int
    gathered: int
    """Of sharded or cast weights, those of the blocks at work."""
    activations: int
    logits: int
    reserve: int

    @property
    def state(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.reference

    @property
    def total(self) -> int:
        passing = self.gathered + self.activations + self.logits  # gone when the optimizer steps, in place
        return self.state + passing + self.reserve


@dataclass(frozen=True, slots=True)
class EngineMemory:
    """Bytes on one card of an engine."""

    weights: int
    cache: int
    """Keys and values."""
    token: int
    """Of them, those of one token."""
    tokens: int
    """Tokens that the cache holds."""
    sequences: int
    """Sequences at once: slots of the local engine, of SGLang such as are as long as expected."""
    reserve: int

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.reserve


def itemsize(dtype: str) -> int:
    return int(getattr(torch, dtype).itemsize)


def learner_memory(config: Config, model: Model, layout: Layout, tokens: int) -> LearnerMemory:
    """Of a rank whose largest micro-batch has `tokens`."""
    trained, beside = model.trained, layout.tp - 1
    embedding = beside * model.embedding  # embedding and head are sharded, and not cut: each group has them whole
    part = cut_model(model, layout.tp)
    size = itemsize(config.model.dtype)
    weights = size * model.parameters + 4 * model.adapter if model.adapter else 4 * model.parameters
    held = weights + 4 * embedding
    copies = 3 if config.learner.agreement else 1
    return LearnerMemory(
        weights=_share(held, layout.ranks),
        gradients=_share(4 * copies * (trained + embedding), layout.ranks),
        optimizer=_share(_moments(config, model) + 8 * embedding, layout.ranks),
        reference=_share(held, layout.ranks) if config.learner.kl else 0,  # whole, adapters and what is under them too
        gathered=_gathered(part, size) if layout.ranks > 1 or size < 4 else 0,
        activations=tokens * activation_bytes(part, size, recompute=config.learner.recompute),
        logits=LOGIT_BYTES * min(max(CHUNK_ELEMENTS, model.vocabulary), tokens * model.vocabulary),
        reserve=reserve(config, layout.learner.is_cpu),
    )


def cut_model(model: Model, parts: int) -> Model:
    """What one of `parts` ranks that share every matrix has of it, and computes of a token."""
    return replace(
        model,
        block=model.block // parts,
        heads=model.heads // parts,
        kv_heads=model.kv_heads // parts,
        inner=model.inner // parts,
    )


def _gathered(model: Model, size: int) -> int:
    """A block at work and the next, embedding and head; and the gradients of the larger, on their way in fp32."""
    gradients = 0 if model.adapter else (size + 4) * max(model.block, model.embedding)
    return size * (2 * model.block + model.embedding) + gradients


def reserve(config: Config, cpu: bool) -> int:
    return 0 if cpu else int(config.plan.reserve_gib * GIB)


def activation_bytes(model: Model, size: int, *, recompute: bool) -> int:
    """Of one token, at the height of the backward pass; `size`: bytes of a number in the blocks."""
    block = block_bytes(model, size)
    wide = max(1, model.routed) * model.inner
    ends = (3 * size + (2 if size < 4 else 0)) * model.hidden + 2 * size * model.head_size
    work = size * (wide + model.hidden)
    kept = model.layers * size * model.hidden + block if recompute else model.layers * block
    return kept + ends + work


def block_bytes(model: Model, size: int) -> int:
    """What one block keeps of one token for its backward pass.

    A norm keeps its input in fp32, that normed, and its output (the next layer's input); attention keeps queries, keys,
    values, its output and, in fp32, the logarithm of each head's sum; a gated MLP keeps gate, its activation, the
    other half and their product; experts keep the same for each token that is sent to them, and its copies.
    """
    hidden, heads, kv = model.hidden, model.heads, model.kv_heads
    queries, keys = heads * model.head_size, kv * model.head_size
    # in fp32 the copy in fp32 is the input itself, and its normed form needs no cast
    norm = 3 * size if size == 4 else 4 + 2 * size
    total = 2 * norm * hidden + 2 * size * (queries + keys) + 4 * heads + 8
    if model.qk_norm:
        total += (2 * size if size == 4 else 4 + size) * (queries + keys) + 4 * (heads + kv)
    if not model.routed:
        return total + 4 * size * model.inner
    return total + model.routed * size * (4 * model.inner + 2 * hidden) + 8 * model.of_experts


def engine_memory(config: Config, model: Model, layout: Layout, beside: int, episode: int) -> EngineMemory:
    """Of a card of an engine. beside: bytes of the learner's that are there when the engine starts; episode: tokens of
    a sequence as expected."""
    size, context = itemsize(config.model.dtype), config.engine.max_context
    each = layout.gpus_each
    weights = _share(size * model.parameters, each)
    token = size * cache_numbers(model.config, each)
    rows = min(config.engine.slots, config.rollout.concurrency)
    kept = reserve(config, layout.engine.is_cpu)
    free = layout.engine.memory - weights - beside - kept
    if config.engine.kind == "sglang":
        room = rows * context * token if layout.engine.is_cpu else _static(config, layout) - weights
        tokens = max(0, room) // token
        return EngineMemory(weights, tokens * token, token, tokens, tokens // max(1, episode), kept)
    slots = slots_within(max(0, free), token * context, rows)
    columns = SlotCache(slots, context).columns
    return EngineMemory(weights, slots * columns * token, token, slots * context, slots, kept)


def _static(config: Config, layout: Layout) -> int:
    arguments = config.engine.server_args
    named = {a.partition("=")[0]: a.partition("=")[2] for a in arguments}
    name = "--mem-fraction-static"
    said = named.get(name, "")
    if name in arguments and not said:
        said = next(iter(arguments[arguments.index(name) + 1 :]), "")
    try:
        share = float(said) if said else STATIC_FRACTION
    except ValueError:
        share = STATIC_FRACTION
    return int(share * layout.engine.memory)


def _moments(config: Config, model: Model) -> int:
    """Adam keeps two fp32 numbers for each, Muon one for each of a matrix."""
    matrices = model.matrices if config.learner.optimizer == "muon" and not model.adapter else 0
    return 4 * (2 * model.trained - matrices)


def _share(total: int, parts: int) -> int:
    return math.ceil(total / parts)
