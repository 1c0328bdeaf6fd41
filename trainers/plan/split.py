"""How many of the cards should learn, and how many should play."""

from __future__ import annotations

from agentgym.trainers.plan.resolve import Plan, with_ranks


def splits(plan: Plan) -> list[tuple[int, int]]:
    """(learner ranks, engines) that use all cards: ranks are powers of two, whole machines, or all but one engine's
    cards. Empty where nothing can be split."""
    layout = plan.layout
    if layout.shared or layout.learner.is_cpu or layout.engine.is_cpu or plan.config.engine.kind != "sglang":
        return []
    each, gpus = layout.gpus_each, layout.gpus
    found = {ranks for ranks in _steps(gpus, layout.per_node) if ranks < gpus and (gpus - ranks) % each == 0}
    if (gpus - layout.ranks) % each == 0:
        found.add(layout.ranks)
    return [(ranks, (gpus - ranks) // each) for ranks in sorted(found) if gpus > ranks and ranks % layout.tp == 0]


def _steps(gpus: int, per_node: int) -> set[int]:
    powers = {1 << i for i in range(gpus.bit_length())}
    whole = (
        set(range(per_node, gpus, per_node)) if gpus <= 32 * per_node else set(range(4 * per_node, gpus, 4 * per_node))
    )
    few = set(range(1, per_node)) if gpus <= 2 * per_node else set()
    return powers | whole | few


def best_split(plan: Plan) -> Plan | None:
    """The split with the shortest step of those that fit; None where none does, or nothing can be split."""
    plans = [with_ranks(plan, ranks, replicas) for ranks, replicas in splits(plan)]
    fitting = [other for other in plans if not other.lacks]
    return min(fitting, key=lambda other: other.step_seconds, default=None)
