"""`agentgym/FunctionCalling-v0`: call the functions that a request needs, with the right arguments, and no others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentgym.envs.function_calling.conversation import Conversation
from agentgym.envs.function_calling.forms import Form
from agentgym.envs.function_calling.household import FAMILIES
from agentgym.envs.function_calling.one_shot import OneShot
from agentgym.envs.function_calling.requests import SYSTEM, Requests, generate
from agentgym.envs.function_calling.rows import load_rows
from agentgym.envs.tasks import TaskSet, split_tasks
from agentgym.envs.tool_env import ToolEnv
from agentgym.protocols import Policy
from agentgym.tools.episode import Episode
from agentgym.tools.toolset import ToolSet
from agentgym.types import Message, Task

FORMS: Mapping[str, Form] = {"requests": Requests(), "one_shot": OneShot(), "conversation": Conversation()}
TURNS_OF_ROWS = 120


class FunctionCallingEnv(ToolEnv):
    """DOC"""

    tools = tuple(one for family in FAMILIES.values() for one in family)
    weights = {"turns_right": 0.0}  # noqa: RUF012 - read-only
    system = SYSTEM
    max_turns = 12

    def __init__(
        self,
        tasks: Any = None,
        *,
        answers: str = "",
        docs: str = "",
        data: str = "",
        demo_mistakes: float = 0.55,
        demo_second_mistakes: float = 0.7,
        demo_parallel: float = 0.3,
        **kwargs: Any,
    ):
        if data:  # rows bring their own system message, if any, and conversations are long
            kwargs = {"system": "", "max_turns": TURNS_OF_ROWS, **kwargs}
        super().__init__(tasks, data=data, **kwargs)
        self._files = (data, answers, docs)
        self.demo_mistakes = demo_mistakes
        self.demo_second_mistakes = demo_second_mistakes
        self.demo_parallel = demo_parallel

    def make_tasks(self, split: str) -> TaskSet:
        return generate(split)

    def _make_split(self, split: str) -> TaskSet:
        if self._data:
            return split_tasks(load_rows(*self._files), split, self.holdout)
        return super()._make_split(split)

    def tools_for(self, task: Task) -> ToolSet:
        return self._form(task).toolset(task)

    def setup(self, episode: Episode) -> None:
        self._form(episode.task).setup(episode)

    def reply(self, episode: Episode, message: Message) -> Message | None:
        return self._form(episode.task).reply(episode, message)

    def reward(self, task: Task, answer: str, episode: Episode) -> Mapping[str, float]:
        return self._form(task).score(task, answer, episode)

    def expert(self, task: Task, seed: int, style: str = "gold") -> Policy:
        """`gold` makes the right calls; `demo` is the imperfect play of warm starts (on rows of BFCL: `gold`)."""
        return self._form(task).expert(task, seed, None if style == "gold" else self)

    def _form(self, task: Task) -> Form:
        return FORMS[task.metadata["form"]]
