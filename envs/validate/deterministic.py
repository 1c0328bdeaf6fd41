"""Deterministic: the same seed is the same episode, and a stored one can be played again, word for word."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from agentgym.envs.script import replay, say
from agentgym.envs.validate.bench import Bench, Case, Played
from agentgym.envs.validate.explore import call_with, calling
from agentgym.envs.validate.finding import Finding
from agentgym.protocols import Policy
from agentgym.types import Message

Seen = list[tuple[Any, ...]]


def check(bench: Bench) -> Finding:
    """Every few cases' play by gold (else by rambling): again in the same env after other episodes, and, out of
    stored messages, in envs made anew, through their core and through Gymnasium's face."""
    cases = bench.few
    first = [bench.play(_player(bench, case), case) for case in cases]
    other = bench.make()
    try:
        for case, played in zip(cases, first, strict=True):
            stored = replay(_stored(played))
            for how, env in (("in the same env", bench.env), ("in an env made anew", other)):
                if difference := _difference(played, bench.play(stored, case, env)):
                    return Finding(False, f"{case}: played again {how}, {difference}", {"episodes": len(cases)})
        for case, played in zip(cases, first, strict=True):
            one, two = (_through_gymnasium(env, case, _stored(played)) for env in (bench.env, other))
            if one != two:
                at = next(
                    (i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two))
                )
                why = f"{case}: Gymnasium's step {at} differs between two envs: {_apart(one[at:], two[at:])}"
                return Finding(False, why, {"episodes": len(cases)})
    finally:
        if hasattr(other, "close"):
            other.close()
    return Finding(True, "", {"episodes": len(cases)})


def _player(bench: Bench, case: Case) -> Policy:
    if bench.golds[case] is not None:
        gold: Policy = bench.env.expert(case.task, case.seed, "gold")
        return gold
    calls = [call_with(schema, "1") for schema in bench.schemas]
    return replay([*([calling(*calls)] * 2 if calls else []), say("1")])


def _stored(played: Played) -> list[Message]:
    """The player's messages as a file of trajectories holds them."""
    lines = [json.dumps(message.to_openai()) for message in played.said]
    return [Message.from_openai(json.loads(line)) for line in lines]


def _difference(one: Played, two: Played) -> str:
    if one.start.messages != two.start.messages or one.start.tools != two.start.tools:
        return "it begins otherwise"
    for i, (a, b) in enumerate(zip(one.steps, two.steps, strict=False)):
        if a.messages != b.messages:
            return f"turn {i + 1} is answered {_text(b.messages)} and not {_text(a.messages)}"
        if (a.reward, a.components, a.outcome) != (b.reward, b.components, b.outcome):
            return f"turn {i + 1} is paid {b.reward:g} {dict(b.components)} and not {a.reward:g} {dict(a.components)}"
        if a != b:
            return f"turn {i + 1} ends otherwise (stop reason, tags or metrics)"
    return "" if len(one.steps) == len(two.steps) else f"it takes {len(two.steps)} turns and not {len(one.steps)}"


def _text(messages: Sequence[Message]) -> str:
    return repr("\n".join(message.text for message in messages)[:80])


def _through_gymnasium(env: Any, case: Case, said: Sequence[Message]) -> Seen:
    if not hasattr(env, "step"):
        return []
    seen: Seen = [env.reset(seed=case.seed, options=case.options)]
    for message in said:
        seen.append(env.step(message))
        if seen[-1][2] or seen[-1][3]:
            break
    return seen


def _apart(one: Seen, two: Seen) -> str:
    if not one or not two:
        return "one of them ends earlier"
    for name, a, b in zip(("observation", "reward", "terminated", "truncated", "info"), one[0], two[0], strict=False):
        if a != b and isinstance(a, dict) and isinstance(b, dict):
            return f"info[{next(key for key in a if a[key] != b.get(key))!r}]"
        if a != b:
            return name
    return "info"
