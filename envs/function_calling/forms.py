"""What an env of function calls asks of each form of task: generated requests, one message, whole conversations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from agentgym.protocols import Policy
from agentgym.tools.episode import Episode
from agentgym.tools.toolset import ToolSet
from agentgym.types import Message, Task


class Form(Protocol):
    """How tasks of one form are played and scored."""

    def toolset(self, task: Task) -> ToolSet:
        """The functions that a task offers."""
        ...

    def setup(self, episode: Episode) -> None: ...

    def reply(self, episode: Episode, message: Message) -> Message | None:
        """What the user says to a message without calls; None ends the episode."""
        ...

    def score(self, task: Task, answer: str, episode: Episode) -> Mapping[str, float]: ...

    def expert(self, task: Task, seed: int, habits: Any) -> Policy:
        """A gold player; with `habits` (an env's demo_* numbers) one that makes mistakes."""
        ...
