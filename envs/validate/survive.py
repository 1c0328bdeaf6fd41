"""Survive: whatever a model may write is answered with an observation or scored, never an exception."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from agentgym.envs.validate.bench import LONGEST, Bench, Case, run
from agentgym.envs.validate.explore import call_with, text_parameters
from agentgym.envs.validate.finding import Finding
from agentgym.types import Message, StopReason, ToolCall

MEGABYTE = 1 << 20
SLOW = 30.0
"""Seconds beyond which one hostile message is no longer survived."""
ODD = {
    "control characters": "".join(map(chr, range(32))) + "\x7f\x85",
    "lone surrogates": "a\ud800b\udfff",
    "unicode": "日本語 🙂 \u202egnirts\u202c e\u0301 \u0000 \ufeff \U0010ffff",
    "1 MB": "x" * MEGABYTE,
    "1 MB of digits": "7" * MEGABYTE,
    "1 MB of brackets": "{[(\\boxed{" * (MEGABYTE // 10),
    "1 MB of lines": "#### 1\n" * (MEGABYTE // 7),
    "1 MB of fences": "```python\n" * (MEGABYTE // 10),
}
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    1e308,
    10**400,
    float("nan"),
    "",
    [],
    {},
    [[[[]]]],
    {"a": {"b": [None]}},
    "a\ud800b\0c",
    "../../../../etc/passwd",
)


def check(bench: Bench) -> Finding:
    """One episode a hostile message: it must be answered, and a plain answer after it must be scored."""
    case, slowest, episodes = bench.few[0], ("", 0.0), 0
    for what, message in _hostile(bench):
        began = time.perf_counter()
        try:
            _face(bench, case, message)
        except Exception as e:  # any at all is a finding
            return Finding(False, f"{what}: {type(e).__name__}: {str(e)[:300]}", {"episodes": episodes})
        episodes += 1
        slowest = max(slowest, (what, time.perf_counter() - began), key=lambda found: found[1])
        if slowest[1] > SLOW:
            return Finding(False, f"{what}: took {slowest[1]:.0f} s", {"episodes": episodes})
    return Finding(True, "", {"episodes": episodes, "slowest": slowest[0], "seconds": round(slowest[1], 2)})


def _hostile(bench: Bench) -> Iterator[tuple[str, str | Message]]:
    odd = dict(list(ODD.items())[:4]) if bench.heavy else ODD
    for name, text in odd.items():
        yield f"an answer of {name}", Message("assistant", text)
        yield f"a text of {name}", f"{text}<tool_call>{text}</tool_call>"
    for text in ("<tool_call>", '<tool_call>{"name": "', "<tool_call>[]</tool_call>", "</tool_call>", "[TOOL_CALLS]{"):
        yield f"malformed text {text!r}", text
    yield "an unknown tool", _calls(ToolCall("a", "no_such_tool", {"x": 1}))
    yield "a tool without a name", _calls(ToolCall("", "", {}))
    yield "a malformed call", _calls(ToolCall("a", "x", {}, "invalid JSON"), ToolCall("a", "y", {}, "cut short"))
    for schema in bench.schemas:
        name = schema["function"]["name"]
        for value in VALUES[::3] if bench.heavy else VALUES:
            known = call_with(schema, "x").arguments
            yield f"{name}({value!r:.40})", _calls(ToolCall("a", name, dict.fromkeys(known or ("x",), value)))
        yield f"{name} without arguments", _calls(ToolCall("a", name, {}))
        if text_parameters(schema):
            for what, text in list(odd.items())[: 4 if bench.heavy else None]:
                yield f"{name} of {what}", _calls(call_with(schema, text))
    names = [schema["function"]["name"] for schema in bench.schemas] or ["x"]
    yield "a hundred calls", _calls(*[ToolCall(f"c{i}", names[i % len(names)], {"y": i}) for i in range(100)])


def _calls(*calls: ToolCall) -> Message:
    return Message("assistant", "", tool_calls=calls)


def _face(bench: Bench, case: Case, said: str | Message) -> None:
    """Say it, then an answer; raises where the env raises, or leaves a call without an observation."""
    env = bench.env
    try:
        if isinstance(said, str):
            if not hasattr(env, "step"):
                return
            env.reset(seed=case.seed, options=case.options)
            done = any(env.step(said)[2:4])
        else:
            run(env, env.areset(seed=case.seed, options=case.options))
            step = run(env, env.astep(said))
            done, answers = step.done, [message for message in step.messages if message.role == "tool"]
            if said.tool_calls and len(answers) != len(said.tool_calls):
                raise ValueError(f"{len(said.tool_calls)} calls, but {len(answers)} observations")
            if said.tool_calls and not all(message.text for message in answers[: 1 if done else None]):
                raise ValueError("a call is answered with an empty observation")
        for _ in range(LONGEST):
            if done:
                return
            done = run(env, env.astep(Message("assistant", "I do not know."))).done
        run(env, env.finish(StopReason.max_turns))
    finally:
        run(env, env.aclose())
