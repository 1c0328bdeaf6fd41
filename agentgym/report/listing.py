"""The registered environments, described by themselves."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from agentgym.errors import AgentGymError
from agentgym.registry import env_ids, make_env


def describe_all() -> list[dict[str, Any]]:
    """One dict an env: id, description, kinds, tasks (by split), tools (name and description); `error` where the env
    cannot be made here."""
    return [_describe(env_id) for env_id in env_ids()]


def _describe(env_id: str) -> dict[str, Any]:
    try:
        env = make_env(env_id)
        start = asyncio.run(env.areset(seed=0))
        tasks = {split: env.tasks(split) for split in ("train", "test")}
    except (AgentGymError, ImportError) as e:
        return {"id": env_id, "description": "", "kinds": [], "tasks": {}, "tools": [], "error": str(e)}
    return {
        "id": env_id,
        "description": (inspect.getdoc(type(env)) or "").partition("\n\n")[0].replace("\n", " "),
        "kinds": sorted({task.kind for found in tasks.values() for task in found if task.kind}),
        "tasks": {split: len(found) for split, found in tasks.items()},
        "tools": [_tool(schema) for schema in start.tools],
    }


def _tool(schema: Mapping[str, Any]) -> dict[str, str]:
    function = schema["function"]
    return {"name": function["name"], "description": function.get("description", "")}


def print_envs(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    """The list for a person."""
    for env in found:
        console.print(Text(env["id"], style="bold cyan"))
        if error := env.get("error"):
            console.print(Text(f"  cannot be made here: {error}", style="red"))
            continue
        console.print(Text(f"  {env['description']}"))
        if env["kinds"]:
            console.print(Text.assemble(("  kinds  ", "dim"), ", ".join(env["kinds"])))
        console.print(Text.assemble(("  tools  ", "dim"), ", ".join(tool["name"] for tool in env["tools"])))
        counts = ", ".join(f"{count:,} {split}" for split, count in env["tasks"].items())
        console.print(Text.assemble(("  tasks  ", "dim"), counts))
