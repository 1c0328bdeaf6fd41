"""Null: an empty answer at once, no answer ever, and an episode that ends before the first word pay nothing."""

from __future__ import annotations

from collections.abc import Iterable

from agentgym.envs.script import replay
from agentgym.envs.validate.bench import Bench, Case, run
from agentgym.envs.validate.explore import call_with, calling
from agentgym.envs.validate.finding import Finding
from agentgym.envs.validate.floor import Attack, exemptions, hold, says
from agentgym.types import StopReason


def check(bench: Bench) -> Finding:
    def attacks(case: Case) -> Iterable[Attack]:
        yield says("an empty answer", "")
        if not bench.heavy:
            yield says("an answer of spaces", " \n\t\u00a0\u200b")
            yield from _never_answers(bench)

    found = hold(bench, "null", attacks)
    if found.value is True and (wrong := _cut_short(bench)):
        return Finding(False, wrong, found.figures)
    return found


def _never_answers(bench: Bench) -> Iterable[Attack]:
    """The same blind call, until the episode ends."""
    for schema in bench.schemas[:1]:
        yield Attack("no answer but blind calls", replay([calling(call_with(schema, "0"))]), lucky=True)


def _cut_short(bench: Bench) -> str:
    """What is wrong where an episode is ended from outside, before the agent has said anything."""
    env, floor, exempt = bench.env, float(getattr(bench.env, "floor", 0.0)), exemptions(bench.env, "null")
    for case in bench.few:
        if case.task.kind in exempt:
            continue
        run(env, env.areset(seed=case.seed, options=case.options))
        step = run(env, env.finish(StopReason.max_tokens))
        if step.reward > floor + 1e-9:
            return f"ended before the first word, on {case}: reward {step.reward:g}, above the floor"
    return ""
