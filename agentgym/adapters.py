"""Environments of other packages: their ids, known without importing what would take seconds."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PREFIX = "agentgym/reasoning_gym."
TARGET = "agentgym.envs.adapters.reasoning_gym:ReasoningGymEnv"
_REGISTERED = re.compile(r"^register_dataset\(\s*(?:[\"'](\w+)[\"']|(\w+))\s*,", re.MULTILINE)
_WITHOUT_TASKS = ("composite",)
"""Made of others, which have to be named first."""


def adapter_specs() -> dict[str, tuple[str, dict[str, str]]]:
    """id -> (entry point, arguments) of what can be made with the packages that are installed."""
    return {f"{PREFIX}{name}-v0": (TARGET, {"name": name}) for name in reasoning_gym_names()}


@cache
def reasoning_gym_names() -> tuple[str, ...]:
    """reasoning-gym's generators, read off its source files; empty where the extra `adapters` is not installed."""
    found = find_spec("reasoning_gym")
    if found is None or not found.submodule_search_locations:
        return ()
    names: set[str] = set()
    for file in Path(found.submodule_search_locations[0]).glob("*/*.py"):
        text = file.read_text(encoding="utf-8")
        for literal, constant in _REGISTERED.findall(text):
            value = re.search(rf"^{constant} = [\"'](\w+)[\"']", text, re.MULTILINE) if constant else None
            name = literal or (value[1] if value else "")
            if name:
                names.add(name)
    return tuple(sorted(names - {*_WITHOUT_TASKS}))
