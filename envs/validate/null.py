"""Null: an empty answer at once, and a message of spaces, pay nothing."""

from __future__ import annotations

from collections.abc import Iterable

from agentgym.envs.validate.bench import Bench, Case
from agentgym.envs.validate.finding import Finding
from agentgym.envs.validate.floor import Attack, hold, says


def check(bench: Bench) -> Finding:
    def attacks(case: Case) -> Iterable[Attack]:
        yield says("an empty answer", "")
        if not bench.heavy:
            yield says("an answer of spaces", " \n\t\u00a0\u200b")

    return hold(bench, "null", attacks)
