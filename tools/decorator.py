"""`@tool`: a typed Python function becomes something a model can call.

The schema comes from the type hints and the docstring; arguments are checked and coerced before the function sees them.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from typing import Any, overload

from agentgym.errors import AgentGymError, ToolError, ToolFault, UserError
from agentgym.protocols import Sandbox
from agentgym.tools.arguments import BadArguments, Parameters
from agentgym.tools.driving import checkpoint
from agentgym.tools.episode import Episode
from agentgym.tools.output import MAX_OUTPUT, written
from agentgym.tools.signals import StopEpisode, ToolBusy, ToolFailed, used_up
from agentgym.tools.threads import threads

_PLAIN = frozenset({str, int, float, bool, dict, list, type(None)})  # told apart faster than by `isawaitable`
RETRY_ON: tuple[type[Exception], ...] = (ConnectionError, TimeoutError)
BACKOFF_S = 0.05
"""Pause before the second try; it doubles with each."""
MAX_BACKOFF_S = 1.0
_INJECT = {"episode": Episode, "sandbox": Sandbox}
_NEVER_RETRIED = (ToolFailed, StopEpisode, BadArguments, UserError)


class FunctionTool:
    """A function with a name, an OpenAI function schema and checked arguments. Calling it calls the function."""

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        name: str = "",
        description: str = "",
        timeout: float | None = None,
        parallel: bool = False,
        stops: bool = False,
        max_output: int = MAX_OUTPUT,
        max_calls: int = 0,
        retries: int = 0,
        retry_on: type[Exception] | tuple[type[Exception], ...] = RETRY_ON,
    ):
        self.fn = fn
        self.name = name or fn.__name__
        if not self.name.replace("_", "").replace("-", "").isalnum():
            raise ToolError(f"tool {self.name!r}: give it a name of letters, digits, '_' and '-' (@tool(name=...))")
        self.timeout = timeout
        self.parallel = parallel
        self.stops = stops
        self.max_output = max_output
        self.max_calls = max_calls
        self.retries = retries
        self.retry_on = retry_on if isinstance(retry_on, tuple) else (retry_on,)
        self._check_options()
        self.__doc__ = fn.__doc__
        self.__name__ = self.name
        self.__signature__ = inspect.signature(fn)
        self.runs_async = inspect.iscoroutinefunction(fn)
        self.suspends = self.runs_async or timeout is not None or retries > 0
        """Whether a call may wait on an event loop."""
        self._parameters = Parameters.of(fn, self.name, inject=_INJECT)
        if "sandbox" in self._parameters.injected.values() and not self.runs_async:
            raise ToolError(f"tool {self.name!r}: takes the sandbox, whose methods are async: write `async def`")
        function = {
            "name": self.name,
            "description": description or self._parameters.summary,
            "parameters": self._parameters.schema,
        }
        self.schema: Mapping[str, Any] = {"type": "function", "function": function}

    def _check_options(self) -> None:
        def refuse(option: str, wanted: str) -> ToolError:
            return ToolError(f"tool {self.name!r}: {option} {wanted}, got {getattr(self, option)!r}")

        if self.timeout is not None and not self.timeout > 0:
            raise refuse("timeout", "is in seconds and must be above 0")
        for option, least in (("max_output", 1), ("max_calls", 0), ("retries", 0)):
            if type(number := getattr(self, option)) is not int or number < least:
                raise refuse(option, f"must be a whole number from {least} on")
        if not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in self.retry_on):
            raise refuse("retry_on", "must be exception classes")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<tool {self.name}({', '.join(self._parameters.names)})>"

    def __deepcopy__(self, memo: dict[int, Any]) -> FunctionTool:
        return self  # it holds no state; gymnasium copies the arguments of registered envs

    def with_options(self, **changes: Any) -> FunctionTool:
        """The same tool under other options: `calculator.with_options(max_calls=3)`."""
        names = ("name", "timeout", "parallel", "stops", "max_output", "max_calls", "retries", "retry_on")
        options = {name: getattr(self, name) for name in names}
        options["description"] = self.schema["function"]["description"]
        return FunctionTool(self.fn, **{**options, **changes})

    async def call(self, arguments: Mapping[str, Any], episode: Any = None, *, threaded: bool = False) -> str:
        """Check `arguments`, run, and give the answer as text.

        Raises `BadArguments` with a message for the model, `ToolFailed` beyond `max_calls`, TimeoutError, `ToolFault`
        where the tool itself is at fault (retries spent, an answer that is no text), and whatever the function
        raises. A sync function with a timeout runs in a thread, which goes on in the background after the timeout.
        """
        ready = self._parameters.check(arguments)
        if self.max_calls and isinstance(episode, Episode) and not episode.spend(self.name, self.max_calls):
            raise used_up(self.name, self.max_calls)
        if self._parameters.injected:
            ready.update(await self._injected(episode))
        if self.suspends or threaded:
            value = await self._wait(ready, threaded)
        else:
            value = self.fn(**ready)
            if type(value) not in _PLAIN and inspect.isawaitable(value):
                await checkpoint()
                value = await value
        return written(value, self.name, self.max_output)

    async def _injected(self, episode: Any) -> dict[str, Any]:
        if episode is None:
            raise ToolError(f"tool {self.name!r} needs an episode: call it through an env")
        given = {}
        for name, source in self._parameters.injected.items():
            given[name] = episode if source == "episode" else await episode.sandbox()
        return given

    async def _wait(self, ready: Mapping[str, Any], threaded: bool) -> Any:
        await checkpoint()
        if self.timeout is None:
            return await self._tries(ready, threaded)
        deadline = asyncio.timeout(self.timeout)
        try:
            async with deadline:
                return await self._tries(ready, True)
        except TimeoutError:
            if deadline.expired():
                raise TimeoutError(f"{self.name} timed out after {self.timeout:g} s") from None
            raise

    async def _tries(self, ready: Mapping[str, Any], threaded: bool) -> Any:
        if not self.retries:
            return await self._once(ready, threaded)
        for tried in range(self.retries + 1):
            try:
                return await self._once(ready, threaded)
            except self.retry_on as e:
                if isinstance(e, _NEVER_RETRIED) or (tried == self.retries and isinstance(e, AgentGymError)):
                    raise
                if tried == self.retries:  # the author named it as nobody's fault, so it is not the model's
                    raise ToolFault(f"{self.name}: {type(e).__name__}: {e} (tried {tried + 1} times)") from e
            await asyncio.sleep(min(BACKOFF_S * 2**tried, MAX_BACKOFF_S))
        raise AssertionError

    async def _once(self, ready: Mapping[str, Any], threaded: bool) -> Any:
        if threaded and not self.runs_async:
            return await threads.run(self.fn, **ready)
        value = self.fn(**ready)
        return await value if inspect.isawaitable(value) else value


@overload
def tool(fn: Callable[..., Any], /) -> FunctionTool: ...


@overload
def tool(
    *,
    name: str = "",
    description: str = "",
    timeout: float | None = None,
    parallel: bool = False,
    stops: bool = False,
    max_output: int = MAX_OUTPUT,
    max_calls: int = 0,
    retries: int = 0,
    retry_on: type[Exception] | tuple[type[Exception], ...] = RETRY_ON,
) -> Callable[[Callable[..., Any]], FunctionTool]: ...


def tool(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a tool of a typed function, sync or async: `@tool` or `@tool(timeout=5)`.

    A parameter annotated `Episode` or `Sandbox` is given the episode under way, or its sandbox, and hidden from the
    model.

    Args:
        fn: the function; its docstring's first part describes the tool, Google-style `Args:` its parameters.
        name: what the model calls it, default the function's name.
        description: in place of the docstring's.
        timeout: seconds of a call, all of its tries together; a sync function then runs in a thread.
        parallel: neighbouring calls of one turn to such tools run at once (sync ones in threads).
        stops: the episode ends after this tool has answered.
        max_output: characters of the answer, beyond which it is cut and marked.
        max_calls: calls of one episode that are run; those beyond are answered with an error. 0: no limit.
        retries: how often a call that raises one of `retry_on` is tried again, after a short pause. If the last try
            fails too, the episode is unscored: what is retried is a fault of nobody who is being scored.
        retry_on: the exceptions that are retried, default ConnectionError and TimeoutError.

    Raises:
        ToolError: an argument without a type hint, or one that no JSON schema can describe; an option out of range.
    """
    if fn is not None:
        return FunctionTool(fn, **options)
    return lambda function: FunctionTool(function, **options)


__all__ = ["MAX_OUTPUT", "BadArguments", "FunctionTool", "StopEpisode", "ToolBusy", "ToolFailed", "tool"]
