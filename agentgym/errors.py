"""The error tree. Errors are named for the boundary that was crossed.

    AgentGymError
    ├── UserError            the user can mend it: printed without a traceback, exit code 2
    │   ├── ConfigError      a recipe, key or value
    │   ├── DataError        a file or row of data (file and line are named)
    │   ├── ModelError       a model folder or id
    │   ├── RunError         a run folder
    │   ├── CompareError     two evaluations that did not play the same
    │   ├── EvaluationError  an evaluation of which nothing could be scored
    │   └── ToolError        a tool that cannot be registered as written
    └── EpisodeFault         an episode that could not be played or scored; recorded, never reward 0
        ├── EnvFault  ToolFault  SandboxFault  VerifierFault  EngineFault  TimeoutFault  ProgramFault
        │                                                     ├── EngineGone       another replica may answer
        │                                                     └── WeightMismatch   it answers, with other weights

A model's own mistake (malformed call, wrong arguments, unknown tool) is none of these: it is an observation.
"""

from __future__ import annotations

import asyncio


class AgentGymError(Exception):
    """Base of every error this package raises on purpose."""


class UserError(AgentGymError):
    """Something the user can mend; the text says what was wrong and what to do."""


class ConfigError(UserError):
    """A recipe, key or value of the configuration."""


class DataError(UserError):
    """A data file or one of its rows."""


class ModelError(UserError):
    """A model folder or id."""


class RunError(UserError):
    """A run folder."""


class CompareError(UserError):
    """Two evaluations that cannot be compared, for they did not play the same."""


class EvaluationError(UserError):
    """An evaluation of which nothing could be scored: the text says what went wrong most often."""


class ToolError(UserError):
    """A tool that cannot be registered as it is written."""


class EpisodeFault(AgentGymError):
    """An episode that could not be played or scored. `kind` names the boundary."""

    kind = "fault"

    def __init__(self, message: str = "", *, kind: str | None = None):
        super().__init__(message)
        if kind is not None:
            self.kind = kind


class EnvFault(EpisodeFault):
    kind = "env_error"


class ToolFault(EpisodeFault):
    kind = "tool_error"


class SandboxFault(EpisodeFault):
    kind = "sandbox_error"


class SandboxUnavailable(SandboxFault, UserError):
    """This machine cannot hold untrusted code in the way that was asked; the text says what is missing."""


class SandboxFileError(AgentGymError):
    """A file of a sandbox that cannot be read or written as asked."""


class VerifierFault(EpisodeFault):
    kind = "verifier_error"


class EngineFault(EpisodeFault):
    kind = "engine_error"


class EngineGone(EngineFault):
    """The engine itself is away (no connection, no answer): another replica may do what this one could not."""


class WeightMismatch(EngineFault):
    """An engine runs other weights than those it was sent."""


class TimeoutFault(EpisodeFault):
    kind = "timeout"


class ProgramFault(EpisodeFault):
    """Of the user's own agent (`rollout.agent`)."""

    kind = "program_error"


def unmeant(error: BaseException | None) -> bool:
    """Whether it is a cancellation that nobody aimed at the task it is met in: it came out of the code that was called,
    by something that it waited for. One that is meant (a deadline, the end of a run) has asked the task to end."""
    if not isinstance(error, asyncio.CancelledError):
        return False
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop: a coroutine that is run by hand is never cancelled
        return True
    return task is None or not task.cancelling()


def told(error: BaseException) -> str:
    """An error in a line: its class, and what it says."""
    text = str(error)
    if not text and isinstance(error, asyncio.CancelledError):
        text = "it was cancelled, and not by the episode's end"
    return f"{type(error).__name__}: {text}"


class boundary:  # noqa: N801 - it reads as a statement
    """Turn whatever is raised inside into `fault`, user errors too: in an episode they are a failure of that episode.

    So are SystemExit and a cancellation that is `unmeant`. Faults pass unchanged, and what ends the task or the
    program; `passes` are further errors that do.
    """

    __slots__ = ("_fault", "_passes", "_what")

    def __init__(self, fault: type[EpisodeFault], what: str = "", *, passes: type[AgentGymError] = EpisodeFault):
        self._fault = fault
        self._what = what
        self._passes = passes

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, EpisodeFault | self._passes):
            return
        if isinstance(error, Exception | SystemExit) or unmeant(error):
            prefix = f"{self._what}: " if self._what else ""
            raise self._fault(f"{prefix}{told(error)}") from error
