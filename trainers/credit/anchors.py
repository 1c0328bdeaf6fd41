"""When two turns began in the same state: GiGPO's anchors, told by the messages that the agent was shown."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Literal, TypeAlias

from agentgym.types import Message, Trajectory

Anchor: TypeAlias = Literal["observation", "conversation"]


def anchors(trajectory: Trajectory, kind: Anchor) -> list[str]:
    """A key of the state in which each turn was played; equal keys are the same state.

    observation: what came since the agent's last message, as in the paper, where that is all of the state.
    conversation: everything up to there, the agent's own words included; nothing is then mistaken for the same state.
    Ids of calls are left out: they say nothing of the world.
    """
    ends: dict[int, str] = {}
    """By a turn's id: the key of the conversation up to its end, what it was answered left out."""
    answered = {turn.id: turn.observations for turn in trajectory.turns}
    last: int | None = None
    keys = []
    for turn in trajectory.turns:
        # a template's rewriting leaves no parent, but the conversation goes on from the turn before
        before = last if turn.parent is None and not turn.prompt else turn.parent
        shown = turn.prompt or (trajectory.prompt if before is None else answered[before])
        state = _key("" if before is None else ends[before], shown)
        ends[turn.id] = _key(state, [turn.message])
        keys.append(f"{turn.agent_id}/{state if kind == 'conversation' else _key('', shown)}")
        last = turn.id
    return keys


def _key(past: str, messages: Iterable[Message]) -> str:
    digest = hashlib.blake2b(past.encode(), digest_size=16)
    for message in messages:
        digest.update(json.dumps(_said(message)).encode())
    return digest.hexdigest()


def _said(message: Message) -> list[object]:
    content = message.text if isinstance(message.content, str) else message.to_openai()["content"]
    calls = [[call.name, json.dumps(dict(call.arguments), sort_keys=True, default=str)] for call in message.tool_calls]
    return [message.role, content, calls, message.name]
