"""Whether an environment's reward can be trusted: `validate(env)` plays it rightly, cheaply, hostilely, and counts.

    gold            the scripted right player is paid the most
    null echo dump tool_print inject peek   cheap players stay at the floor
    deterministic   the same seed is the same episode; a stored one can be played again
    check_env       Gymnasium's own checker
    survive leak    nothing that a model writes raises; nothing is left behind

An env says in attributes what is otherwise with it: `floor`, the total reward that a cheap player may have at most
(default 0), and `exempt`, {"check" or "check:kind": reason}, as {"null:irrelevance": "to call nothing is right there"}.
What this cannot find: a reward that is wrong and yet wants the agent's own work; a loophole that none of the players
here tries.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from agentgym.envs.validate import (
    deterministic,
    dump,
    echo,
    gold,
    gymnasium_face,
    inject,
    leak,
    null,
    peek,
    survive,
    tool_print,
)
from agentgym.envs.validate.bench import Bench, judged, run
from agentgym.envs.validate.finding import Finding, Report
from agentgym.envs.validate.sheet import warnings_of

CHECKS: dict[str, Callable[[Bench], Finding]] = {
    "gold": gold.check,
    "null": null.check,
    "echo": echo.check,
    "dump": dump.check,
    "tool_print": tool_print.check,
    "inject": inject.check,
    "peek": peek.check,
    "deterministic": deterministic.check,
    "check_env": gymnasium_face.check,
    "survive": survive.check,
    "leak": leak.check,
}


def validate(
    env: str, *, args: Mapping[str, Any] | None = None, tasks: int = 24, seed: int = 0, strict: bool = False
) -> Report:
    """Put an env to all checks. `env` is an id or `path.py:name`, `args` its constructor's, `tasks` how many cases gold
    plays (a sixth of them where episodes have sandboxes, but every kind). Raises `UserError` for an env that cannot be
    made; what goes wrong in it is a finding."""
    began = time.perf_counter()
    bench = Bench(env, dict(args or {}), tasks, seed)
    try:
        findings, remarks = _findings(bench)
    finally:
        bench.close()
    return Report(env, findings, tuple(remarks), strict, time.perf_counter() - began)


def run_check(bench: Bench, name: str) -> Finding:
    """One check; whatever the env raises in it is a failure."""
    found, raised = judged(CHECKS[name], bench)
    return Finding(False, raised) if found is None else found


def _findings(bench: Bench) -> tuple[dict[str, Finding], list[str]]:
    made = bench.make()  # what is wrong with making it is the user's to mend, and told as such
    run(made, made.aclose())
    _, broken = judged(lambda b: b.cases and b.schemas, bench)
    if broken:  # no episode can begin: nothing else can be said
        return {name: Finding(False, f"no episode begins: {broken}") for name in CHECKS}, []
    findings = {}
    for name in CHECKS:
        findings[name] = run_check(bench, name)
    remarks, raised = judged(warnings_of, bench)
    return findings, remarks or ([raised] if raised else [])


__all__ = ["CHECKS", "Finding", "Report", "validate"]
