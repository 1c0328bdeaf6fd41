"""A set of tools by name, and the running of one turn's calls."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from itertools import groupby
from typing import Any, Protocol, runtime_checkable

from agentgym.activity import broken_off, current
from agentgym.errors import AgentGymError, EpisodeFault, SandboxFileError, ToolError, ToolFault, told, unmeant
from agentgym.overrun import Overrun
from agentgym.protocols import Tool
from agentgym.tools.arguments import BadArguments
from agentgym.tools.decorator import FunctionTool
from agentgym.tools.driving import checkpoint
from agentgym.tools.episode import ToolResult
from agentgym.tools.output import MAX_OUTPUT, cut, written
from agentgym.tools.signals import StopEpisode, ToolFailed
from agentgym.types import ToolCall

BUILT_IN = {
    "calculator": "agentgym.tools.calculator:calculator",
    "python": "agentgym.tools.python:python",
    "shell": "agentgym.tools.shell:shell",
    "think": "agentgym.tools.think:think",
    **{name: f"agentgym.tools.files:{name}" for name in ("read_file", "write_file", "edit_file", "list_files")},
}


@runtime_checkable
class ToolSource(Protocol):
    """Whoever knows tools only once it is asked: an MCP server."""

    async def open(self, user: object) -> Sequence[Tool]:
        """The tools, the same each time; it stays ready until every user has said `close`."""
        ...

    async def close(self, user: object) -> None: ...


class ToolSet:
    """Tools by name. Takes tools, typed functions, names of built-in tools and whatever holds several of these (a
    list, another set, `Http`); refuses two of one name."""

    def __init__(self, tools: Iterable[Any] = ()):
        self._tools: dict[str, Tool] = {}
        self.sources: tuple[ToolSource, ...] = ()
        """What has to be asked which tools there are, see `open`."""
        self._asked: set[int] = set()
        self.schemas: tuple[Mapping[str, Any], ...] = ()
        for given in _each(tools):
            if not isinstance(given, FunctionTool) and isinstance(given, ToolSource):
                self.sources = (*self.sources, given)
            else:
                self._add(resolve_tool(given))

    def _add(self, tool: Tool, advice: str = "@tool(name=...)") -> None:
        if tool.name in self._tools:
            raise ToolError(f"two tools are called {tool.name!r}; give one another name: {advice}")
        self._tools[tool.name] = tool
        self.schemas = (*self.schemas, tool.schema)

    async def open(self, user: object) -> None:
        """Ask the sources for their tools, for a user who says `close` in the end; again costs little."""
        for source in self.sources:
            tools = await source.open(user)
            if id(source) not in self._asked:
                self._asked.add(id(source))
                for tool in tools:
                    self._add(tool, 'prefix="..." of its server')

    async def close(self, user: object) -> None:
        """Let go of the sources."""
        for source in self.sources:
            await source.close(user)

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    def __len__(self) -> int:
        return len(self._tools)

    def __contains__(self, name: str) -> bool:
        return name in self._tools

    def __getitem__(self, name: str) -> Tool:
        return self._tools[name]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._tools)

    async def run(self, calls: Sequence[ToolCall], episode: Any = None) -> list[ToolResult]:
        """Answer the calls of one turn, in call order, each under its own id.

        In order, one after the other; neighbouring calls of `parallel` tools at once. After a call that ends the
        episode the rest are not run. Raises only faults of the machinery, and user errors where there is no episode.
        """
        if len(calls) == 1:
            return [await self.run_one(calls[0], episode)]
        results: list[ToolResult] = []
        for together, batch in groupby(calls, key=self._is_parallel):
            if together and len(chunk := list(batch)) > 1:
                await checkpoint()
                results += await asyncio.gather(*(self.run_one(call, episode, threaded=True) for call in chunk))
                continue
            for call in chunk if together else batch:
                results.append(await self.run_one(call, episode))
                if results[-1].stop:
                    break
            if results[-1].stop:
                break
        late = calls[len(results) :]
        return results + [ToolResult(call, "error: not run: the episode has ended", True) for call in late]

    async def run_one(self, call: ToolCall, episode: Any = None, *, threaded: bool = False) -> ToolResult:
        """Answer one call. What the model did wrong and what the tool raised become text."""
        if call.error is not None:
            return ToolResult(call, cut(f"error: {call.error}", MAX_OUTPUT), True)
        tool = self._tools.get(call.name)
        if tool is None:
            return ToolResult(call, f"error: {self._unknown(call.name)}", True)
        limit = getattr(tool, "max_output", MAX_OUTPUT)
        try:
            text = await self._answer(tool, call, episode, threaded, limit)
        except SandboxFileError as e:  # a path that the model has named, or what it has done to the file
            problem = f"error: {e}"
        except EpisodeFault:
            raise
        except AgentGymError as e:
            if episode is None:
                raise
            raise ToolFault(f"{tool.name}: {told(e)}") from e
        except asyncio.CancelledError as e:
            if not unmeant(e):
                raise
            raise ToolFault(f"{tool.name}: {told(e)}") from e
        except StopEpisode as stop:
            return ToolResult(call, written(str(stop), tool.name, limit), False, True)
        except ToolFailed as failed:
            problem = str(failed)
        except (BadArguments, TimeoutError) as e:
            problem = f"error: {e}"
        except (Exception, SystemExit) as e:  # a function that exits must not take the worker with it
            problem = f"error: {type(e).__name__}: {e}"
        else:
            return ToolResult(call, text, False, getattr(tool, "stops", False))
        return ToolResult(call, written(problem, tool.name, limit), True)

    async def _answer(self, tool: Tool, call: ToolCall, episode: Any, threaded: bool, limit: int) -> str:
        """What the tool says; while it works on it, the episode's activity says so."""
        activity = current()
        if activity is None:
            return await _call(tool, call, episode, threaded, limit)
        if not threaded and isinstance(tool, FunctionTool) and not tool.runs_async:
            threaded = _code(tool) in _slow
            activity.inline = not threaded
        began = activity.begin(tool.name)
        try:
            if activity.tool_seconds:
                text = await _in_time(tool, call, episode, threaded, limit, activity.tool_seconds)
            else:
                text = await _call(tool, call, episode, threaded, limit)
        except BaseException as e:
            if broken_off(e):
                if activity.inline and isinstance(e, Overrun):
                    _slow.add(_code(tool))
            else:
                activity.inline = False
                activity.end(began)
            raise
        activity.inline = False
        activity.end(began)
        return text

    def _is_parallel(self, call: ToolCall) -> bool:
        return bool(getattr(self._tools.get(call.name), "parallel", False))

    def _unknown(self, name: str) -> str:
        name = name if len(name) <= 60 else name[:57] + "..."
        if not self._tools:
            return f"unknown tool {name!r}: there are no tools here"
        return f"unknown tool {name!r}; the tools are: {', '.join(self._tools)}"


_slow: set[Any] = set()
"""Functions that held up the event loop until they were stopped: they run in threads from then on."""


def _code(tool: Tool) -> Any:
    """What tells that it is the same function, whoever has made a tool of it."""
    function = getattr(tool, "fn", tool)
    return getattr(function, "__code__", function)


async def _call(tool: Tool, call: ToolCall, episode: Any, threaded: bool, limit: int) -> str:
    if isinstance(tool, FunctionTool):
        return await tool.call(call.arguments, episode, threaded=threaded)
    await checkpoint()  # anyone's: it may need an event loop from its first line
    return written(await tool.call(call.arguments, episode), tool.name, limit)


async def _in_time(tool: Tool, call: ToolCall, episode: Any, threaded: bool, limit: int, seconds: float) -> str:
    """Within the run's limit: beyond it the machinery is at fault, and not the model. A tool's own timeout, where it is
    shorter, is an answer that the model sees."""
    await checkpoint()
    deadline = asyncio.timeout(seconds)
    try:
        async with deadline:
            return await _call(tool, call, episode, threaded, limit)
    except TimeoutError:
        if deadline.expired():
            raise ToolFault(f"{tool.name} gave no answer within {seconds:g} s (rollout.tool_seconds)") from None
        raise


def _each(tools: Iterable[Any]) -> Iterator[Any]:
    for given in tools:
        if isinstance(given, FunctionTool):  # first: to look at a protocol's members costs more than to make a set
            yield given
        elif isinstance(given, ToolSet):
            yield from given.sources
            yield from given
        elif isinstance(given, Iterable) and not isinstance(given, str | Tool):
            yield from _each(given)
        else:
            yield given


def resolve_tool(given: Any) -> Tool:
    """A tool as it is, a typed function made into one, or a built-in one by name; raises `ToolError`."""
    if isinstance(given, str):
        target = BUILT_IN.get(given)
        if target is None:
            close = difflib.get_close_matches(given, BUILT_IN, n=1)
            nearest = f"; did you mean {close[0]!r}?" if close else ""
            raise ToolError(f"no built-in tool {given!r}{nearest} (built in: {', '.join(BUILT_IN)})")
        module, _, name = target.partition(":")
        built_in: Tool = getattr(import_module(module), name)
        return built_in
    if isinstance(given, FunctionTool) or isinstance(given, Tool):  # noqa: SIM101 - the protocol is looked at last
        return given
    if callable(given) and hasattr(given, "__name__"):
        return FunctionTool(given)
    raise ToolError(f"{given!r} is no tool: expected a @tool function, a typed function or a built-in tool's name")
