"""Pieces of scripted players: what experts and tests build their messages from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentgym.protocols import Policy
from agentgym.types import Message, ToolCall


def say(text: str) -> Message:
    """An assistant message that answers."""
    return Message("assistant", text)


def call(tool: str, id: str = "call_0", /, **arguments: Any) -> Message:
    """An assistant message that calls one tool."""
    return Message("assistant", "", tool_calls=(ToolCall(id, tool, arguments),))


def replay(messages: Sequence[Message]) -> Policy:
    """Say the assistant messages of a conversation again, in order; the last one from then on."""
    lines = [message for message in messages if message.role == "assistant"]

    def policy(conversation: Sequence[Message]) -> Message:
        spoken = sum(message.role == "assistant" for message in conversation)
        return lines[min(spoken, len(lines) - 1)]

    return policy
