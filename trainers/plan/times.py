"""Seconds of a step from stated peak rates: learning, generation, and the way of the weights.

They leave out what is not arithmetic, memory or links: environments' and tools' time, tokenizing, waiting.
"""

from __future__ import annotations

from dataclasses import dataclass

from agentgym.config import Config
from agentgym.trainers.plan.batches import Batch
from agentgym.trainers.plan.layout import Layout
from agentgym.trainers.plan.memory import EngineMemory, itemsize
from agentgym.trainers.plan.model import Model
from agentgym.trainers.weights.buckets import buckets_of

RECORDED_US, LAUNCHED_US, CPU_US = 15.0, 200.0, 3000.0
"""What a layer costs a decoding step beside its arithmetic, in microseconds: kernels of a recorded graph (SGLang), or
launched one by one by Python (the local engine); on a CPU as measured on the tiny model with 16 to 128 sequences."""
BUCKET_SECONDS = 0.005
"""A bucket's round trip of requests."""


@dataclass(frozen=True, slots=True)
class LearnTime:
    """Seconds of one learner step."""

    compute: float
    gather: float
    """Sharded weights and gradients on their way; it overlaps with `compute`."""
    cut: float
    """Sums over the ranks that share every matrix: the next operation waits for each."""
    optimizer: float
    tokens_per_s: float
    """Real tokens, of all ranks."""

    @property
    def total(self) -> float:
        return max(self.compute + self.cut, self.gather) + self.optimizer


@dataclass(frozen=True, slots=True)
class PlayTime:
    """Seconds of generating one step's episodes."""

    decode: float
    prefill: float
    longest: float
    """The longest episode alone, beside the others: a synchronous step cannot be shorter."""
    sequences: int
    """Under way at once in one engine."""
    tokens_per_s: float
    """Sampled tokens, of all engines."""

    @property
    def total(self) -> float:
        return self.decode + self.prefill


@dataclass(frozen=True, slots=True)
class SyncTime:
    """Seconds for new weights to arrive."""

    way: str
    bytes: int
    buckets: int
    seconds: float


def launch_us(config: Config, layout: Layout) -> float:
    """`plan.launch_us`, else by the engine."""
    usual = RECORDED_US if config.engine.kind == "sglang" else LAUNCHED_US
    return config.plan.launch_us or (CPU_US if layout.engine.is_cpu else usual)


def learn_time(config: Config, model: Model, layout: Layout, batch: Batch) -> LearnTime:
    """Operations: two a weight and token forward, four backward (two where only adapters are trained), two more where
    blocks are recomputed or a reference is asked; attention on top."""
    forward = 2.0 * model.worked + 4.0 * model.layers * model.heads * model.head_size * batch.attended
    forward /= layout.tp
    head = 2.0 * model.head * config.plan.sampled
    passes = (2.0 if model.adapter else 3.0) + (1.0 if config.learner.kl else 0.0)
    # logits are computed again in the backward pass in any case
    work = forward * (passes + config.learner.recompute) + head * (passes + 1.0)
    size = itemsize(config.model.dtype)
    card = layout.learner
    rate = card.flops(config.model.dtype) * config.plan.mfu
    compute = work * batch.busiest / rate
    gather = _gather(config, model, layout, batch, size)
    cut = _cut(config, model, layout, batch, size)
    held = (model.trained + (layout.tp - 1) * model.embedding) / layout.ranks
    touched = 20 * held  # weights, gradients and moments, read and written
    optimizer = batch.minibatches * touched / (card.bandwidth * config.plan.bandwidth)
    total = max(compute + cut, gather) + optimizer
    return LearnTime(compute, gather, cut, optimizer, batch.tokens / total)


def _gather(config: Config, model: Model, layout: Layout, batch: Batch, size: int) -> float:
    """Each pass gathers all weights twice (forward, backward) and scatters the gradients once, in fp32."""
    if layout.groups == 1:
        return 0.0
    whole = (layout.tp - 1) * model.embedding  # which is sharded, and not cut
    moved = (2 * size * (model.parameters + whole) + 4 * (model.trained + whole)) / layout.tp
    away = (layout.groups - 1) / layout.groups
    return batch.micro_batches * moved * away / (layout.link(layout.ranks) * config.plan.link)


def _cut(config: Config, model: Model, layout: Layout, batch: Batch, size: int) -> float:
    """Of each block, two sums of hidden states forward and, for each matrix that reads them, one backward (queries,
    keys, values, the MLP's two); each takes a ring of the group's ranks."""
    if layout.tp == 1:
        return 0.0
    sums = 2 * (1 + config.learner.recompute + bool(config.learner.kl)) + 5
    moved = 2 * (layout.tp - 1) / layout.tp * size * model.hidden * model.layers * sums * batch.busiest
    return moved / (layout.link(layout.tp) * config.plan.link)


def play_time(config: Config, model: Model, layout: Layout, batch: Batch, memory: EngineMemory) -> PlayTime:
    """Decoding reads the weights that its tokens meet and the caches of all sequences, once a step."""
    plan, size = config.plan, itemsize(config.model.dtype)
    mean = max(1, batch.tokens // batch.rows)
    sequences = _sequences(config, layout, batch, memory, mean)
    step = _decode_step(config, model, layout, sequences, mean / 2, size)
    each = sequences / step
    rate = layout.engine.flops(config.model.dtype) * layout.gpus_each * plan.prefill_mfu
    context = (batch.tokens - batch.sampled) / layout.replicas
    if config.engine.kind != "sglang" or config.engine.pause != "in_place":
        context += sequences * mean / 2  # caches are computed anew after an update
    sampled = batch.sampled / layout.replicas
    return PlayTime(
        decode=sampled / each,
        prefill=2.0 * model.active * context / rate,
        longest=batch.longest * plan.sampled * step,
        sequences=sequences,
        tokens_per_s=each * layout.replicas,
    )


def _sequences(config: Config, layout: Layout, batch: Batch, memory: EngineMemory, mean: int) -> int:
    """As many as may be under way, have room in the cache, and are allowed ahead."""
    rollout = config.rollout
    under_way = rollout.workers * rollout.concurrency / layout.replicas
    ahead = (rollout.max_staleness + 1) * batch.rows / layout.replicas
    return max(1, int(min(under_way, ahead, memory.tokens / mean, max(1, memory.sequences))))


def _decode_step(config: Config, model: Model, layout: Layout, sequences: int, past: float, size: int) -> float:
    """Seconds in which every sequence gets one token."""
    plan, card, each = config.plan, layout.engine, layout.gpus_each
    weights = size * (model.active + (_experts_met(model, sequences) if model.routed else 0))
    caches = size * 2.0 * model.layers * model.kv_heads * model.head_size * past * sequences
    memory = (weights + caches) / (each * card.bandwidth * plan.bandwidth)
    compute = 2.0 * model.active * sequences / (each * card.flops(config.model.dtype) * plan.prefill_mfu)
    return max(memory, compute) + model.layers * launch_us(config, layout) * 1e-6


def _experts_met(model: Model, tokens: int) -> float:
    """Numbers of the experts that some of `tokens` are sent to, beyond those that each token meets, where every
    expert is as likely."""
    met = 1.0 - (1.0 - model.routed / model.of_experts) ** tokens
    return model.experts * max(0.0, met - model.routed / model.of_experts)


def sync_time(config: Config, model: Model, layout: Layout) -> SyncTime:
    """Through host memory to the local engine, else as `engine.sync` says."""
    size, plan = itemsize(config.model.dtype), config.plan
    moved = size * model.parameters  # adapters are merged into them
    if config.engine.kind != "sglang":
        rate = min(layout.learner.host, layout.engine.host) * plan.link
        return SyncTime("shared memory", moved, 1, 2 * moved / rate)  # down from the learner's card, up to the engine's
    if config.engine.sync == "disk":
        # written once, read by every engine of a machine at once
        return SyncTime("disk", moved, 1, 2 * moved / (plan.disk_gbs * 1e9))
    buckets = len(buckets_of(model.tensors, config.engine.bucket_mib << 20))
    # to rank 0 where they are sharded, then to all engines at once, card after card
    gathered = moved / (layout.link(layout.ranks) * plan.link) if layout.ranks > 1 else 0.0
    sent = moved / (layout.link(layout.gpus) * plan.link)
    return SyncTime(config.engine.sync, moved, buckets, gathered + sent + buckets * BUCKET_SECONDS)
