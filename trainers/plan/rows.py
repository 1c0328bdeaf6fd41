"""The sections of a plan, each a dict of what and how much."""

from __future__ import annotations

from agentgym.trainers.plan.resolve import Plan
from agentgym.trainers.plan.times import launch_us
from agentgym.trainers.plan.words import count, gib, seconds, several

Rows = dict[str, str]
SOURCES = {
    "folder": "by its folder",
    "hub": "by the hub",
    "cache": "by the hub's cache",
    "table": "by the built-in table: the hub cannot be reached",
    "tiny": "built when the run begins; its vocabulary is a guess",
}
LEARNER = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer state",
    "reference": "reference",
    "gathered": "gathered blocks",
    "activations": "activations",
    "logits": "logits",
    "reserve": "left alone",
}


def sections(plan: Plan, best: Plan | None) -> dict[str, Rows]:
    """In the order in which they are told. best: the balanced split."""
    layout = plan.layout
    who = "a learner rank" if layout.ranks > 1 else "the learner"
    whose = "an engine's process" if layout.engine.is_cpu else "an engine's GPU"
    return {
        "model": _model(plan),
        "place": _place(plan),
        "batch": _batch(plan),
        f"memory of {who} ({gib(layout.learner.memory)})": _learner(plan),
        f"memory of {whose} ({gib(layout.engine.memory)})": _engine(plan),
        "one step": _step(plan),
        "split": _split(plan, best),
        "assumed": _assumed(plan),
    }


def _model(plan: Plan) -> Rows:
    model, config = plan.model, plan.config
    sizes = f"{count(model.parameters)}, {count(model.parameters - model.embedding)} without embedding and head"
    if model.routed:
        sizes += f"; active {count(model.active)} ({model.routed} of {model.of_experts} experts)"
    trains = f"adapters of rank {config.model.lora_rank}: {count(model.adapter)}" if model.adapter else "all weights"
    heads = f"{several(model.heads, 'head')} of {model.head_size}, {model.kv_heads} for keys and values"
    return {
        "name": f"{model.name} ({model.architecture}, {SOURCES[model.source]})",
        "parameters": sizes,
        "trained": f"{trains}, by {config.learner.optimizer}, {config.model.dtype}",
        "shape": f"{several(model.layers, 'layer')} of {model.hidden}, {heads}, vocabulary {model.vocabulary:,}",
    }


def _place(plan: Plan) -> Rows:
    layout, config = plan.layout, plan.config
    sharded = f", weights sharded over {layout.ranks}" if layout.ranks > 1 else ""
    if layout.tp > 1:
        sharded += f": {layout.groups} (FSDP) by {layout.tp} (tensor parallel)"
    each = "" if layout.engine.is_cpu else f" of {several(layout.gpus_each, 'GPU')}"
    beside = ", on the learner's" if layout.shared else ""
    where = "on a Ray cluster" if config.cluster.kind == "ray" else "on this machine"
    return {
        "GPUs": _gpus(plan),
        "learner": f"{several(layout.ranks, 'rank')} on {layout.learner.name}{sharded}",
        "engines": f"{layout.replicas} x {config.engine.kind}{each}{beside}",
        "workers": f"{config.rollout.workers}, {config.rollout.concurrency} episodes each, {where}",
    }


def _gpus(plan: Plan) -> str:
    layout = plan.layout
    if not layout.gpus:
        return "none"
    name = layout.engine.name if layout.learner.is_cpu else layout.learner.name
    machines = f" in {layout.nodes} machines of {layout.per_node}" if layout.nodes > 1 else ""
    spare = layout.gpus - layout.taken
    return f"{layout.gpus:,} {name}{machines}" + (f", {spare} idle" if spare else "")


def _batch(plan: Plan) -> Rows:
    batch = plan.batch
    tokens = f"{count(batch.tokens)} a step, {count(batch.sampled)} of them sampled"
    most = f"at most {batch.micro_tokens:,} tokens, {batch.tokens / batch.padded:.0%} of them real"
    return {
        "episodes": f"{several(batch.groups, 'group')} of {batch.group_size}: {batch.rows:,} a step",
        "tokens": f"{tokens}; {batch.tokens_row:,} a row on average, at most {batch.context:,}",
        "micro-batches": f"{batch.micro_batches} a rank of {most}",
        "optimizer steps": str(batch.minibatches),
    }


def _learner(plan: Plan) -> Rows:
    memory = plan.learner
    rows = {name: gib(size) for field, name in LEARNER.items() if (size := getattr(memory, field))}
    if plan.config.learner.recompute:
        rows["activations"] += ", recomputed in the backward pass"
    return {**rows, "at most": gib(memory.total)}


def _engine(plan: Plan) -> Rows:
    memory = plan.engine
    holds = f"{memory.token / 1024:,.1f} KiB a token, {memory.tokens:,} tokens, {several(memory.sequences, 'sequence')}"
    rows = {"weights": gib(memory.weights), "cache": f"{gib(memory.cache)}: {holds}"}
    if memory.reserve:
        rows["left alone"] = gib(memory.reserve)
    return {**rows, "in all": gib(memory.total)}


def _step(plan: Plan) -> Rows:
    learn, play, sync = plan.learn, plan.play, plan.sync
    shards = f", {seconds(learn.gather)} sharding beside it" if learn.gather else ""
    cut = f", {seconds(learn.cut)} sums over what is cut" if learn.cut else ""
    parts = f"{seconds(learn.compute)} arithmetic{cut}{shards}, {seconds(learn.optimizer)} optimizer"
    played = f"{seconds(play.decode)} decoding {several(play.sequences, 'sequence')} an engine"
    buckets = f" in {sync.buckets} buckets" if sync.buckets > 1 else ""
    return {
        "learn": f"{seconds(learn.total)} ({parts}): {learn.tokens_per_s:,.0f} tokens/s",
        "play": (
            f"{seconds(play.total)} ({played}, {seconds(play.prefill)} reading context): "
            f"{play.tokens_per_s:,.0f} sampled tokens/s"
        ),
        "longest episode": seconds(play.longest),
        "new weights": f"{seconds(sync.seconds)}: {gib(sync.bytes)} by {sync.way}{buckets}",
        "in all": f"{seconds(plan.step_seconds)}, learning and playing {'in turn' if plan.in_turn else 'at once'}",
    }


def _split(plan: Plan, best: Plan | None) -> Rows:
    learn, play = plan.learn.total, plan.play.total
    which = ("learning", "playing") if learn >= play else ("playing", "learning")
    rows = {"as configured": f"{which[0]} takes {max(learn, play) / min(learn, play):.1f} times as long as {which[1]}"}
    if best is not None:
        options = f"--learner.ranks={best.layout.ranks} --engine.replicas={best.layout.replicas}"
        times = f"learn {seconds(best.learn.total)}, play {seconds(best.play.total)}"
        rows["balanced"] = f"{options}: {seconds(best.step_seconds)} a step ({times})"
    return rows


def _assumed(plan: Plan) -> Rows:
    given, layout = plan.config.plan, plan.layout
    rows = {}
    for card in (layout.learner, layout.engine):
        arithmetic = (
            f"{card.flops(plan.config.model.dtype) / 1e12:,.4g} TFLOP/s, {card.bandwidth / 1e9:,.0f} GB/s memory"
        )
        links = f"{card.link / 1e9:,.0f} GB/s to a neighbour, {card.net / 1e9:,.4g} GB/s to another machine"
        rows[card.name] = f"{arithmetic}" + ("" if card.is_cpu else f", {links}") + " (peaks)"
    return {
        **rows,
        "reached of them": (
            f"learning {given.mfu:.0%}, reading context {given.prefill_mfu:.0%}, decoding {given.bandwidth:.0%} of the "
            f"memory's rate, links {given.link:.0%} (plan.mfu, prefill_mfu, bandwidth, link)"
        ),
        "a decoding step": f"{launch_us(plan.config, plan.layout):g} us a layer besides (plan.launch_us)",
        "new weights": "whole on no card: gathered and handed on in buckets, whose memory is not counted",
        "episodes": (
            f"lengths are lognormal, {given.sampled:.0%} of the tokens sampled (plan.episode_tokens, plan.sampled); no "
            "time is counted for environments and tools"
        ),
    }
