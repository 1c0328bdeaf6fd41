"""Gold: the scripted right player must be paid the most there is, on every kind of task."""

from __future__ import annotations

from collections import Counter

from agentgym.envs.validate.bench import Bench
from agentgym.envs.validate.finding import Finding


def check(bench: Bench) -> Finding:
    """Gold's outcome is correct on every sampled case; "na" where no case has a gold player."""
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
    if lost:
        first = played[lost[0]]
        why = f"gold loses {len(lost)} of {len(played)}: {lost[0]}, reward {first.reward:g}, {first.end.outcome.value}"
        return Finding(False, f"{why}, {first.end.stop_reason}", figures)
    return Finding(True, "", figures)
