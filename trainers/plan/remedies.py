"""What would make a plan fit: changes of the config that were tried, by planning with them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

from agentgym.config import Config, load_config
from agentgym.errors import UserError
from agentgym.trainers.plan.hardware import CARDS
from agentgym.trainers.plan.model import count
from agentgym.trainers.plan.resolve import Plan, make_plan

MOST = 3


def remedies(plan: Plan) -> list[str]:
    """Up to three, the least first, each as the options that it takes."""
    found: list[str] = []
    for change in _changes(plan):
        if _fits(plan, change):
            found.append(" ".join(shlex.quote(f"--{key}={_told(value)}") for key, value in change.items()))
        if len(found) == MOST:
            break
    return found


def _fits(plan: Plan, change: dict[str, Any]) -> bool:
    try:
        changed = load_config(None, _merged(plan.config, change))
        model = plan.model
        if any(key.startswith("model.") for key in change):
            model = count(model.config, changed, model.name, model.source)
        return not make_plan(changed, model).lacks
    except UserError:
        return False


def _merged(config: Config, change: dict[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = config.model_dump()
    for key, value in change.items():
        section, _, name = key.partition(".")
        merged[section][name] = value
    return merged


def _told(value: Any) -> str:
    """As the command line takes it."""
    return json.dumps(value) if isinstance(value, bool | list) else str(value)


def _changes(plan: Plan) -> Iterator[dict[str, Any]]:
    config, layout = plan.config, plan.layout
    budget, context = config.learner.tokens_per_microbatch, plan.batch.context
    if not config.learner.recompute:
        yield {"learner.recompute": True}
    if budget > context:
        yield {"learner.tokens_per_microbatch": context}
    if config.cluster.placement == "colocated":
        pass  # the learner alone has to fit, and does not grow with the engine
    elif layout.shared and config.engine.kind == "sglang":
        left = 1 - (plan.learner.total + plan.engine.reserve) / layout.learner.memory
        if left > 0:
            yield {"engine.server_args": [f"--mem-fraction-static={int(left * 100) / 100}"]}
    elif layout.shared:
        for slots in (plan.engine.sequences // 2, plan.engine.sequences // 4):
            if slots:
                yield {"engine.slots": slots}
        yield {"engine.slots": max(1, plan.engine.sequences // 4), "learner.tokens_per_microbatch": context}
    if config.model.dtype == "float32" and not layout.learner.is_cpu:
        yield {"model.dtype": "bfloat16"}
    if config.engine.kind == "sglang":
        yield from ({"engine.gpus_each": each} for each in (2, 4, 8) if each > layout.gpus_each)
    if not layout.shared:
        yield from _more_ranks(plan)
    if not plan.model.adapter:
        yield {"model.lora_rank": 16}
        if config.model.dtype == "float32":
            yield {"model.lora_rank": 16, "model.dtype": "bfloat16"}
    if context > 1024:
        yield {"engine.max_context": context // 2, "learner.tokens_per_microbatch": context // 2}
    if not layout.learner.is_cpu:
        larger = sorted((card for card in CARDS if card.memory > layout.learner.memory), key=lambda card: card.memory)
        yield from ({"plan.gpu": card.name} for card in larger)


def _more_ranks(plan: Plan) -> Iterator[dict[str, Any]]:
    """More ranks on the cards that are left, then on more cards."""
    layout = plan.layout
    for times in (2, 4, 8):
        ranks = layout.ranks * times
        left = layout.gpus - ranks
        if plan.config.engine.kind == "sglang" and left >= layout.gpus_each:
            yield {"learner.ranks": ranks, "engine.replicas": left // layout.gpus_each}
        yield {"learner.ranks": ranks, "plan.gpus": max(layout.gpus, layout.taken + ranks - layout.ranks)}
