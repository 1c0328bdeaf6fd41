"""Tool-prints-answer: the right answer said by a tool, or in thought, and not as the agent's answer, pays nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from agentgym.envs.script import say
from agentgym.envs.validate.bench import Bench, Case, Played
from agentgym.envs.validate.dump import DECOYS
from agentgym.envs.validate.explore import FORMS, call_with, calling, is_code, is_command, text_parameters
from agentgym.envs.validate.finding import Finding
from agentgym.envs.validate.floor import Attack, hold, says
from agentgym.protocols import Policy
from agentgym.types import Message, ToolCall

NO_TOOL = "no_such_tool"
_HANDS_IN = re.compile("answer|submit|final|finish|hand|guess|done|respond|reply|choose|select", re.IGNORECASE)
"""Names of tools that may take answers, where no gold shows which do."""


def check(bench: Bench) -> Finding:
    def attacks(case: Case) -> Iterable[Attack]:
        right = bench.answer(case)
        if not right.strip():
            return
        known = bench.golds[case] is not None  # else nobody knows in which form answers are given
        for written in (right,) if known else [form.format(right) for form in FORMS]:
            yield from _said_aside(bench, case, written)

    return hold(bench, "tool_print", attacks, "no case has a right answer in words that a tool could say")


def _said_aside(bench: Bench, case: Case, right: str) -> Iterable[Attack]:
    wrong = next(iter(bench.others(case)), DECOYS[0] if right.strip() != DECOYS[0] else DECOYS[1])
    ends = {"nothing": "", "a wrong answer": wrong}
    yield says("the right answer in thought only", Message("assistant", "", reasoning=right))
    calls = list(_printing(bench, case, right))
    for told, end in list(ends.items())[: 1 if bench.heavy else None]:
        for call in calls:
            yield says(f"{call.name[:40]} says it, then {told}", calling(call), end)
        aside = Message("assistant", right, tool_calls=(ToolCall("call_0", NO_TOOL, {"text": right}),))
        yield says(f"said beside a call, then {told}", aside, end)
    yield from _own_work(bench, case, ends)


def _printing(bench: Bench, case: Case, right: str) -> Iterable[ToolCall]:
    """Calls whose replies hold the right answer, or are likely to."""
    yield ToolCall("call_0", right if len(right) < 2_000 else NO_TOOL, {})  # unknown tools are often told of by name
    played = bench.golds[case]
    handed_in = {call.name for call in played.calls if _mentions(call.arguments, right)} if played else set()
    for schema in bench.schemas:
        name = schema["function"]["name"]
        if name in handed_in or _stops(bench.env, name) or (played is None and _HANDS_IN.search(name)):
            continue  # where answers are handed in by this tool, this would be an answer
        if is_code(schema):
            yield call_with(schema, f"print({right!r})")
            yield call_with(schema, repr(right))
        elif is_command(schema):
            yield call_with(schema, f"cat <<'THE_END'\n{right}\nTHE_END")
        elif text_parameters(schema):
            yield call_with(schema, right)


def _mentions(arguments: Mapping[str, Any], right: str) -> bool:
    return right.strip() in (str(value).strip() for value in arguments.values())


def _stops(env: Any, name: str) -> bool:
    toolset: Any = getattr(env, "toolset", ())
    return name in toolset and bool(getattr(toolset[name], "stops", False))


def _own_work(bench: Bench, case: Case, ends: Mapping[str, str]) -> Iterable[Attack]:
    """Gold's calls with another answer, where the answer in words is all that gold is paid for."""
    played = bench.golds[case]
    if played is None or not played.calls or not played.answer:
        return
    if not bench.play(says("", played.answer).policy, case).won:
        return  # the work itself is paid for, too
    for told, end in ends.items():
        yield Attack(f"the tools do gold's work, then {told}", _ending(played, end))


def _ending(played: Played, end: str) -> Policy:
    script = [message for message in played.said if message.tool_calls]
    return says("", *script, say(end)).policy
