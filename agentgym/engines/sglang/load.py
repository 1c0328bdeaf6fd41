"""What a server has to do: requests in its queue, and how full its cache is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agentgym.engines.load import Load
from agentgym.engines.sglang.client import Missing, ServerClient
from agentgym.errors import EngineFault

PATHS = ("v1/loads", "get_load")
"""Newer servers have the first; 0.5.17 has the second."""
ASK_SECONDS = 5.0


async def ask_load(client: ServerClient) -> Load | None:
    """None where the server does not say; raises `EngineFault` where it does not answer."""
    for path in PATHS:
        try:
            return read_load(await client.get(path, timeout=ASK_SECONDS))
        except Missing:
            continue
    return None


def read_load(answer: Any) -> Load:
    """Of the ranks that an answer lists, the queues added up and the fullest cache. Raises `EngineFault`."""
    ranks = answer.get("loads") if isinstance(answer, Mapping) else answer
    if not isinstance(ranks, Sequence) or not all(isinstance(rank, Mapping) for rank in ranks):
        raise EngineFault("the server's load cannot be read")
    return Load(
        sum(int(rank.get("num_waiting_reqs") or 0) for rank in ranks),
        max((_share(rank) for rank in ranks), default=0.0),
    )


def _share(rank: Mapping[str, Any]) -> float:
    if rank.get("token_usage") is not None:
        return float(rank["token_usage"])
    used, room = rank.get("num_used_tokens"), rank.get("max_total_num_tokens")
    return float(used) / float(room) if used is not None and room else 0.0
