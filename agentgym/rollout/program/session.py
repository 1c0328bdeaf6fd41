"""What a program is handed of its episode: the endpoint, the env's tools, rewards by completion id."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from agentgym.rollout.program.wire import MODEL, read_message
from agentgym.types import Message, Task, ToolCall

if TYPE_CHECKING:
    from agentgym.rollout.program.conversation import ProgramConversation

T = TypeVar("T")


class EpisodeOver(BaseException):
    """Raised in a program by `step` and `call` when the env has ended the episode: there is nothing left to do. It is
    no `Exception`, so that a program that answers its tools' errors lets it pass."""


class _Session:
    """What both kinds have. `messages` and `tools` are in OpenAI's shape; `seed` is the episode's."""

    model = MODEL

    def __init__(self, conversation: ProgramConversation, base_url: str, api_key: str):
        start = conversation.start
        self._conversation = conversation
        self._loop = asyncio.get_running_loop()
        self.base_url, self.api_key = base_url, api_key
        self.id = conversation.session
        self.seed = conversation.seed
        self.task: Task = start.task
        self.messages: list[dict[str, Any]] = [message.to_openai() for message in start.messages]
        self.tools: list[dict[str, Any]] = [json.loads(json.dumps(tool)) for tool in start.tools]

    def reward(self, value: float, completion_id: str | None = None) -> None:
        """Reward one completion by its id (`chatcmpl-...`), the latest one by default; again adds to it."""
        self._conversation.rate(value, completion_id)

    def _do(self, work: Coroutine[Any, Any, T]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _step(self, message: Any) -> Coroutine[Any, Any, list[dict[str, Any]]]:
        return self._conversation.step(as_message(message))

    def _call(self, name: str, arguments: Any) -> Coroutine[Any, Any, str]:
        return self._conversation.call(as_call(name, arguments))


class Session(_Session):
    """For async programs."""

    async def step(self, message: Any) -> list[dict[str, Any]]:
        """Give the env an assistant message, as the SDK or as a dict; returns the messages it answers: a tool message
        for each call, ready to be appended. Raises `EpisodeOver` where the env ends the episode with it."""
        return list(await asyncio.wrap_future(self._do(self._step(message))))

    async def call(self, name: str, arguments: Mapping[str, Any] | str | None = None) -> str:
        """One call of a tool of the env: what it answers. To the env it is an assistant message of its own."""
        return str(await asyncio.wrap_future(self._do(self._call(name, arguments))))


class BlockingSession(_Session):
    """For programs that are not async."""

    def step(self, message: Any) -> list[dict[str, Any]]:
        """As `Session.step`."""
        return list(self._do(self._step(message)).result())

    def call(self, name: str, arguments: Mapping[str, Any] | str | None = None) -> str:
        """As `Session.call`."""
        return str(self._do(self._call(name, arguments)).result())


def as_message(message: Any) -> Message:
    """An assistant message as programs have it: a dict, an object of the SDK. Raises `ValueError`, `TypeError`."""
    if isinstance(message, Message):
        return message
    row = message.model_dump(exclude_none=True) if hasattr(message, "model_dump") else message
    if not isinstance(row, Mapping):
        raise TypeError(f"step takes an assistant message, got {type(message).__name__}")
    read = read_message({"role": "assistant", **row})
    if read.role != "assistant":
        raise ValueError(f"step takes an assistant message, got one of role {read.role}")
    return read


def as_call(name: str, arguments: Any) -> ToolCall:
    """A call of a program's own making; `arguments` as an object or as JSON text."""
    if arguments is not None and not isinstance(arguments, str | Mapping):
        raise TypeError(f"arguments of {name!r}: expected an object or JSON text, got {type(arguments).__name__}")
    row = {"function": {"name": name, "arguments": arguments if arguments is not None else {}}}
    return Message.from_openai({"role": "assistant", "tool_calls": [row]}).tool_calls[0]
