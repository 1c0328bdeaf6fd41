"""`@tool`: a typed Python function becomes something a model can call.

The schema comes from the type hints and the docstring; arguments are checked and coerced before the function sees them.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, overload

import pydantic_core

from agentgym.errors import ToolError
from agentgym.tools.arguments import BadArguments, Parameters
from agentgym.tools.driving import checkpoint
from agentgym.tools.episode import Episode

MAX_OUTPUT = 8000
"""Characters of a tool's answer; what is cut is marked."""


_PLAIN = frozenset({str, int, float, bool, dict, list, type(None)})  # told apart faster than by `isawaitable`


class ToolFailed(Exception):
    """Raise it in a tool that failed for a reason of the model's: its text is the whole observation."""


class ToolBusy(ToolFailed):
    """Raise it in a tool that cannot serve now: its text (default "busy") is the whole observation."""

    def __init__(self, text: str = "busy"):
        super().__init__(text)


class StopEpisode(Exception):
    """Raise it in a tool to end the episode; its text is the observation."""


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
    ):
        self.fn = fn
        self.name = name or fn.__name__
        if not self.name.replace("_", "").replace("-", "").isalnum():
            raise ToolError(f"tool {self.name!r}: give it a name of letters, digits, '_' and '-' (@tool(name=...))")
        if timeout is not None and timeout <= 0:
            raise ToolError(f"tool {self.name!r}: timeout is in seconds and must be above 0, got {timeout}")
        self.timeout = timeout
        self.parallel = parallel
        self.stops = stops
        self.max_output = max_output
        self.__doc__ = fn.__doc__
        self.__name__ = self.name
        self.__signature__ = inspect.signature(fn)
        self._runs_async = inspect.iscoroutinefunction(fn)
        self._parameters = Parameters.of(fn, self.name, inject=Episode)
        function = {
            "name": self.name,
            "description": description or self._parameters.summary,
            "parameters": self._parameters.schema,
        }
        self.schema: Mapping[str, Any] = {"type": "function", "function": function}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<tool {self.name}({', '.join(self._parameters.names)})>"

    def __deepcopy__(self, memo: dict[int, Any]) -> FunctionTool:
        return self  # it holds no state; gymnasium copies the arguments of registered envs

    @property
    def suspends(self) -> bool:
        """Whether a call may wait on an event loop."""
        return self._runs_async or self.timeout is not None

    async def call(self, arguments: Mapping[str, Any], episode: Any = None, *, threaded: bool = False) -> str:
        """Check `arguments`, run, and give the answer as text.

        Raises `BadArguments` with a message for the model, TimeoutError, and whatever the function raises. A sync
        function with a timeout runs in a thread, which goes on in the background after the timeout.
        """
        ready = self._parameters.check(arguments)
        if self._parameters.injected:
            if episode is None:
                raise ToolError(f"tool {self.name!r} needs an episode: call it through an env")
            ready = {**ready, **dict.fromkeys(self._parameters.injected, episode)}
        if self.suspends or threaded:
            value = await self._wait(ready, threaded)
        else:
            value = self.fn(**ready)
            if type(value) not in _PLAIN and inspect.isawaitable(value):
                await checkpoint()
                value = await value
        return self._text(value)

    async def _wait(self, ready: Mapping[str, Any], threaded: bool) -> Any:
        await checkpoint()
        work: Awaitable[Any] = self.fn(**ready) if self._runs_async else asyncio.to_thread(self.fn, **ready)
        if self.timeout is None:
            return await work
        deadline = asyncio.timeout(self.timeout)
        try:
            async with deadline:
                return await work
        except TimeoutError:
            if deadline.expired():
                raise TimeoutError(f"{self.name} timed out after {self.timeout:g} s") from None
            raise

    def _text(self, value: Any) -> str:
        text = value if type(value) is str else _as_text(value)
        if len(text) > self.max_output:
            cut = len(text) - self.max_output
            text = f"{text[: self.max_output]}\n[... {cut:,} more characters cut]"
        return text


def _as_text(value: Any) -> str:
    if type(value) is int:
        return str(value)
    return json.dumps(value, ensure_ascii=False, default=pydantic_core.to_jsonable_python)


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
) -> Callable[[Callable[..., Any]], FunctionTool]: ...


def tool(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a tool of a typed function, sync or async: `@tool` or `@tool(timeout=5)`.

    Args:
        fn: the function; its docstring's first part describes the tool, Google-style `Args:` its parameters.
        name: what the model calls it, default the function's name.
        description: in place of the docstring's.
        timeout: seconds; a sync function then runs in a thread.
        parallel: neighbouring calls of one turn to such tools run at once (sync ones in threads).
        stops: the episode ends after this tool has answered.
        max_output: characters of the answer, beyond which it is cut and marked.

    Raises:
        ToolError: an argument without a type hint, or one that no JSON schema can describe.
    """
    if fn is not None:
        return FunctionTool(fn, **options)
    return lambda function: FunctionTool(function, **options)


__all__ = ["MAX_OUTPUT", "BadArguments", "FunctionTool", "StopEpisode", "ToolBusy", "ToolFailed", "tool"]
