"""The registered environments, described by themselves."""

from __future__ import annotations

import asyncio
import importlib.resources
import inspect
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from agentgym.errors import AgentGymError
from agentgym.registry import adapter_ids, env_ids, make_env


def describe_all() -> list[dict[str, Any]]:
    """One dict an env: id, description, kinds, tasks (by split), tools (name and description); `error` where the env
    cannot be made here."""
    return [*map(_describe, env_ids()), *map(_adapted, adapter_ids())]


def trained(env_id: str) -> Mapping[str, Any] | None:
    """The curve that a built-in recipe was measured to have on it (`make study-envs`), None where there is none:
    `recipe`, `seeds`, and success on held-out tasks `before` and `after`, medians over the seeds."""
    file = importlib.resources.files("agentgym") / "recipes" / "curves.json"
    curves: dict[str, Any] = json.loads(file.read_text())
    return curves.get(env_id)


def _adapted(env_id: str) -> dict[str, Any]:
    """An adapted env without making it: there are a hundred."""
    gym, _, name = env_id.removeprefix("agentgym/").removesuffix("-v0").partition(".")
    about = f"{gym}'s generator {name}"
    return {"id": env_id, "description": about, "kinds": [], "tasks": {}, "tools": [], "trained": None, "gym": gym}


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
        "trained": trained(env_id),
    }


def _tool(schema: Mapping[str, Any]) -> dict[str, str]:
    function = schema["function"]
    return {"name": function["name"], "description": function.get("description", "")}


def print_envs(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    """The list for a person."""
    for gym, count in Counter(env["gym"] for env in found if "gym" in env).items():
        console.print(
            Text.assemble((f"agentgym/{gym}.NAME-v0", "bold cyan"), f"  {count} generators (--json lists them)")
        )
    for env in found:
        if "gym" in env:
            continue
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
        console.print(Text.assemble(("  curve  ", "dim"), _curve(env["trained"])))


def _curve(row: Mapping[str, Any] | None) -> Text:
    if row is None:
        return Text("never trained", style="yellow")
    return Text(
        f"{row['before']:.2f} to {row['after']:.2f} held out ({row['seeds']} seeds): agentgym train {row['recipe']}"
    )
