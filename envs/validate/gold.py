"""Gold: the scripted right player must be paid the most there is, on every kind of task."""

from __future__ import annotations

from collections import Counter

from agentgym.envs.validate.bench import Bench
from agentgym.envs.validate.finding import Finding
from agentgym.envs.validate.floor import exemptions


def check(bench: Bench) -> Finding:
    """Gold's outcome is correct on every sampled case; "na" where no case has a gold player. An exemption ("gold" or
    "gold:kind": some demos are not perfect) still wants one of them to be."""
    played = {case: found for case, found in bench.gold.items() if found is not None}
    if not played:
        return Finding("na", "no gold player: give tasks a `demo`, or the env an `expert`", {"episodes": 0})
    lost = [case for case, found in played.items() if not found.won]
    figures = {
        "episodes": len(played),
        "least": min(found.reward for found in played.values()),
        "most": max(found.reward for found in played.values()),
        "without_gold": len(bench.gold) - len(played),
        "kinds": dict(Counter(case.task.kind for case in played)),
    }
    excused = exemptions(bench.env, "gold")
    if excused:
        figures["exempt"], figures["lost"] = {kind or "all": why for kind, why in excused.items()}, len(lost)
    if excused and len(lost) < len(played):
        lost = [case for case in lost if "" not in excused and case.task.kind not in excused]
    if lost:
        first = played[lost[0]]
        why = f"gold loses {len(lost)} of {len(played)}: {lost[0]}, reward {first.reward:g}, {first.end.outcome.value}"
        return Finding(False, f"{why}, {first.end.stop_reason}", figures)
    return Finding(True, "", figures)
