"""Whatever an agent calls, the APIs answer; what they refuse changes nothing."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentgym.envs.function_calling.apis import WRITTEN, api_class
from agentgym.envs.function_calling.docs import Function, kind_of, read_functions
from agentgym.envs.function_calling.world import World

TEXTS = st.sampled_from(
    ["a.txt", "d", "..", "", "/", "SFO", "LAX", "t", "c", "2026-11-10", "first", "Buy", "NVDA", "on", "USD"]
)
NUMBERS = st.sampled_from([-1, 0, 1, 2.5, 1e308, 10**400])
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "string": TEXTS | st.text(max_size=5),
    "integer": st.sampled_from([-1, 0, 1, 3, 10**30]),
    "number": NUMBERS,
    "boolean": st.booleans(),
    "object": st.dictionaries(st.sampled_from(["title", "status", "x"]), TEXTS | NUMBERS, max_size=2),
}
CONFIG = {
    "GorillaFileSystem": {
        "root": {"r": {"type": "directory", "contents": {"a.txt": {"type": "file", "content": "x"}}}}
    },
    "TravelAPI": {"access_token": "t", "credit_card_list": {"c": {"balance": 1e4}}},
    "TradingBot": {"authenticated": True},
    "TwitterAPI": {"authenticated": True},
    "TicketAPI": {"current_user": "me"},
    "MessageAPI": {"current_user": "USR001"},
}


def functions_of(name: str, folder: Path) -> dict[str, Function]:
    lines = (folder / f"func_doc_{api_class(name).docs}.jsonl").read_text().splitlines()
    return {one.own_name: one for one in read_functions([json.loads(line) for line in lines])}


@st.composite
def arguments_of(draw: st.DrawFn, function: Function) -> dict[str, Any]:
    made = {}
    for name, spec in function.parameters.items():
        if name in function.required or draw(st.booleans()):
            kind = kind_of(spec)
            value = st.lists(VALUES[kind_of(spec["items"])], max_size=3) if kind == "array" else VALUES[kind]
            made[name] = draw(value)
    return made


@pytest.mark.parametrize("name", WRITTEN)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_call_is_answered_with_json(name: str, bfcl: Path, data: st.DataObject) -> None:
    functions = functions_of(name, bfcl)
    world = World([name], CONFIG, functions)
    for _ in range(3):
        function = functions[data.draw(st.sampled_from(sorted(functions)))]
        before = copy.deepcopy(world.apis[name].state())
        reply = world.call(function.own_name, data.draw(arguments_of(function)))
        if reply.error:
            assert world.apis[name].state() == before
        else:
            json.loads(reply.text)
