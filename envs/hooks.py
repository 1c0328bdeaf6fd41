"""What a `ToolEnv` says of itself: its settings, and the hooks that a subclass gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agentgym.envs.face import TextEnv
from agentgym.envs.script import replay
from agentgym.envs.tasks import task_from_row
from agentgym.errors import ConfigError
from agentgym.protocols import Policy
from agentgym.sandboxes.backends import check_settings
from agentgym.tools.episode import Episode
from agentgym.tools.toolset import ToolSet
from agentgym.types import Message, Task

_LIMITS = ("max_turns", "max_tool_calls", "max_parse_errors", "timeout")
_OPTIONS = (*_LIMITS, "system", "success", "holdout", "tool_format", "sandbox", "floor", "exempt", "gold")


class Hooks(TextEnv):
    """Settings and hooks with their defaults; `ToolEnv` tells when each is used."""

    tools: Sequence[Any] = ()
    """`@tool` functions, typed functions and names of built-in tools."""
    weights: Mapping[str, float] = {}
    """Weights of the reward's components by name."""
    system: str = ""
    """System message of each episode; empty: none."""
    max_turns: int = 16
    """Assistant messages of an episode; 0: no limit."""
    max_tool_calls: int = 0
    """Tool calls of an episode; 0: no limit."""
    max_parse_errors: int = 3
    """Malformed messages in a row that end an episode; 0: no limit."""
    timeout: float = 0.0
    """Seconds of an episode; 0: no limit."""
    sandbox: Mapping[str, Any] = {}
    """The episodes' sandboxes: `backend` (default "local"), `at_once` (how many), and fields of `SandboxSpec` and
    `SandboxLimits`. What is given to an env is added to its class's; a task's metadata may say more under `sandbox`."""
    success: float = 1.0
    """Total reward from which on the outcome is correct."""
    holdout: float = 0.125
    """Share of the questions, by their hash, that are the split "test"; 0: both splits are everything."""
    gold: str = "gold"
    """The reward's component that tells true success, where there is one (best at weight 0): a run warns when the
    reward parts from it."""
    floor: float = 0.0
    """Total reward that cheap players may have at most: `agentgym validate` holds the env to it."""
    exempt: Mapping[str, str] = {}
    """What `agentgym validate` is not to hold the env to: "check" or "check:kind" -> the reason."""

    def _set_options(self, options: Mapping[str, Any]) -> None:
        options = dict(options)
        settings = options.pop("sandbox", {})
        if not isinstance(settings, Mapping):
            raise ConfigError(f"{type(self).__name__}: sandbox = {settings!r}: give a table of settings")
        self.use_sandbox(**settings)
        for name, value in options.items():
            if name not in _OPTIONS:
                raise TypeError(f"{type(self).__name__}() got an unexpected keyword argument {name!r}")
            setattr(self, name, value)
        for name in _LIMITS:
            limit = getattr(self, name)
            if not isinstance(limit, int | float) or limit < 0:
                raise ConfigError(f"{type(self).__name__}: {name} must be a number from 0 on, got {limit!r}")

    def use_sandbox(self, **settings: Any) -> None:
        """Change where the episodes' code runs: see `sandbox`. Raises `ConfigError`."""
        self.sandbox = {**self.sandbox, **settings}
        if self.sandbox:
            check_settings(self.sandbox)

    def make_tasks(self, split: str) -> Iterable[Task]:
        """The tasks of one split, where neither tasks= nor data= is given."""
        raise NotImplementedError

    @classmethod
    def read_row(cls, row: Mapping[str, Any], default_id: str) -> Task:
        """A row of the data file as a task; raise `ValueError` with what is wrong with it."""
        return task_from_row(row, default_id)

    def tools_for(self, task: Task) -> ToolSet | None:
        """The tools of one task's episodes, where tasks bring their own; None: those of the env."""
        return None

    def setup(self, episode: Episode) -> Any:
        """Prepare an episode's `state` (may be async)."""

    def reply(self, episode: Episode, message: Message) -> Message | None:
        """What the user says to a message without calls; None: that was the answer, and the episode ends."""
        return None

    def reward(self, task: Task, answer: str, episode: Episode) -> Any:
        """Score an episode at its end (may be async); by default 1 for exactly the task's answer, spaces aside."""
        return float(answer.strip() == str(task.answer).strip())

    def progress(self, episode: Episode) -> float | None:
        """How near an episode's state is to its goal, 0 to 1; None, the default: this env cannot tell. It is no reward;
        credit (docs/credit.md) and the grader `progress` use it. Called at reset and after each message."""
        return None

    def expert(self, task: Task, seed: int, style: str = "gold") -> Policy | None:
        """A scripted player; by default it replays the task's `demo`."""
        return replay(task.demo) if task.demo else None
