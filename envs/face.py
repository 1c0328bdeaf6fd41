"""Gymnasium's face: a `gymnasium.Env` of texts over an async core of messages."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Coroutine, Mapping
from functools import cache
from typing import Any, TypeVar

import gymnasium
import numpy as np

from agentgym.envs.spaces import Unicode
from agentgym.protocols import Parser, Start, Step
from agentgym.tools.dice import Dice
from agentgym.tools.driving import drive, drive_on_loop
from agentgym.tools.episode import Episode
from agentgym.types import Message

T = TypeVar("T")


class TextEnv(gymnasium.Env[str, str]):
    """The synchronous half of an env: model text in, new text out. Subclasses bring `areset`, `astep` and `aclose`.

    A step that waits for nothing costs no event loop; one that waits moves to a background loop (`tools.driving`). A
    class that writes its own `areset` or `astep` is run on that loop from the start.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012 - as Gymnasium declares it

    tool_format: str = "hermes"
    """How `step` reads tool calls in the model's text."""

    _dice: Dice | np.random.Generator | None = None
    """The env's generator, or what will be it."""

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode
        self._spaces: dict[str, gymnasium.Space[str]] = {}
        self.episode: Episode | None = None
        """The episode under way or just ended."""
        self._chat = Chat()
        self._on_loop = self._needs_loop()

    @property
    def action_space(self) -> gymnasium.Space[str]:
        """Any text. Made when somebody looks: Gymnasium's space of texts takes more memory than an episode."""
        return self._space("action")

    @action_space.setter
    def action_space(self, space: gymnasium.Space[str]) -> None:
        self._spaces["action"] = space

    @property
    def observation_space(self) -> gymnasium.Space[str]:
        """Any text."""
        return self._space("observation")

    @observation_space.setter
    def observation_space(self, space: gymnasium.Space[str]) -> None:
        self._spaces["observation"] = space

    def _space(self, name: str) -> gymnasium.Space[str]:
        if name not in self._spaces:
            self._spaces[name] = Unicode()
        return self._spaces[name]

    @property
    def _np_random(self) -> np.random.Generator | None:
        """Where Gymnasium keeps the env's generator; here it is made when somebody looks."""
        return self._dice.rng if isinstance(self._dice, Dice) else self._dice

    @_np_random.setter
    def _np_random(self, value: np.random.Generator | None) -> None:
        self._dice = value

    def _reseed(self, seed: int | None) -> None:
        """What Gymnasium's own `reset` does."""
        if seed is not None:
            self._dice, self._np_random_seed = Dice(seed), seed

    @abstractmethod
    async def areset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> Start: ...

    @abstractmethod
    async def astep(self, message: Message) -> Step: ...

    @abstractmethod
    async def aclose(self) -> None: ...

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start an episode: the prompt's text, and info. options: `task_id`, `index` or `task`, and `split`."""
        self._chat = Chat()
        start = self._drive(self.areset(seed=seed, options=options))
        text = "\n".join([message.text for message in start.messages if message.role != "system"])
        return text, self._info(None, None)

    def step(self, action: Any) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take what the model wrote (text, or an assistant message); raises `EpisodeFault` where it is unscored."""
        message = self._read(action)
        step = self._drive(self.astep(message))
        text = "\n".join([answer.text for answer in step.messages])
        return text, step.reward, step.terminated, step.truncated, self._info(message, step)

    def render(self) -> str:
        """The conversation so far, one message a paragraph."""
        messages = self.episode.messages if self.episode else []
        return "\n".join(f"{message.role}: {_shown(message)}" for message in messages)

    def close(self) -> None:
        self._drive(self.aclose())

    def _drive(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return drive_on_loop(coroutine) if self._on_loop else drive(coroutine)

    def _needs_loop(self) -> bool:
        return True

    def _read(self, action: Any) -> Message:
        if isinstance(action, str):
            tools = self.episode.tools if self.episode else ()
            return _parser(self.tool_format).parse(action, tools).message()
        return action if isinstance(action, Message) else Message.from_openai(action)

    def _info(self, message: Message | None, step: Step | None) -> dict[str, Any]:
        episode = self.episode
        assert episode is not None  # areset made it
        messages = self._chat.rows(episode.messages)
        calls = self._chat.calls(message) if message and message.tool_calls else []
        recent = episode.calls[-len(calls) :] if calls else []
        return {
            "messages": messages,
            "tool_calls": calls,
            "tool_errors": [result.text for result in recent if result.error],
            "stop_reason": str(step.stop_reason) if step and step.stop_reason else None,
            "reward_components": dict(step.components) if step else {},
            "task_id": episode.task.id,
        }


class Chat:
    """The conversation of an episode in OpenAI's shape; each message is converted once, as it comes."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._rows: list[dict[str, Any]] = []
        self._calls: list[tuple[int, list[dict[str, Any]]]] = []
        """The tool calls of the rows that have some."""
        self._parts: list[int] = []
        """The rows whose content is not plain text."""

    def rows(self, messages: list[Message]) -> list[dict[str, Any]]:
        """`messages`, in dicts of the caller's own."""
        known = len(self._messages)
        if messages[:known] != self._messages:
            self._messages, self._rows, self._calls, self._parts, known = [], [], [], [], 0
        for message in messages[known:]:
            self._add(message)
        own = [row.copy() for row in self._rows]  # copy.deepcopy would cost fifty times as much
        for i, calls in self._calls:
            own[i]["tool_calls"] = _copied(calls)
        for i in self._parts:
            own[i]["content"] = copy.deepcopy(own[i]["content"])
        return own

    def _add(self, message: Message) -> None:
        row = message.to_openai()
        if "tool_calls" in row:
            self._calls.append((len(self._rows), row["tool_calls"]))
        if type(row["content"]) is list:
            self._parts.append(len(self._rows))
        self._messages.append(message)
        self._rows.append(row)

    def calls(self, message: Message) -> list[dict[str, Any]]:
        """The tool calls of a message of the conversation, in dicts of the caller's own."""
        for i, calls in reversed(self._calls):
            if self._messages[i] is message:
                return _copied(calls)
        return list(message.to_openai()["tool_calls"])


def _copied(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    made = []
    for call in calls:
        own = call.copy()
        own["function"] = call["function"].copy()
        made.append(own)
    return made


@cache
def _parser(tool_format: str) -> Parser:
    from agentgym.rollout.parsers import get_parser  # not needed before an env is stepped by text

    return get_parser(tool_format)


def _shown(message: Message) -> str:
    made = [
        f"[{call.name}({', '.join(f'{name}={value!r}' for name, value in call.arguments.items())})]"
        for call in message.tool_calls
    ]
    return " ".join([*([message.text] if message.text else []), *made])
