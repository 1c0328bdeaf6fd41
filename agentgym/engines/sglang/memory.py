"""A server's GPU memory, given back to the machine and taken again.

It takes a server that was started with `--enable-memory-saver`, and one that plays nothing: it ends itself otherwise.
Weights and caches are not kept, so that new weights have to follow.
"""

from __future__ import annotations

from agentgym.engines.sglang.client import ServerClient
from agentgym.errors import EngineFault

SAVER = "--enable-memory-saver"
TAGS = ("kv_cache", "weights")


async def release(client: ServerClient) -> None:
    """Raises `EngineFault` where it refuses, `EngineGone` where it is away."""
    await _ask(client, "release_memory_occupation")


async def resume(client: ServerClient) -> None:
    await _ask(client, "resume_memory_occupation")


async def _ask(client: ServerClient, path: str) -> None:
    answer = await client.post(path, {"tags": list(TAGS)})
    if isinstance(answer, dict) and answer.get("success") is False:
        raise EngineFault(f"{client.name}: /{path}: {answer.get('message', 'refused')}")
