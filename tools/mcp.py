"""Tools of MCP servers: `MCPTools.stdio("my-server")` among an env's tools, and `serve_mcp` the other way round.

A server is started when the first episode begins (or at `async with`) and ends with the last env that uses it, or with
the process. One that dies is started again by the next call. Not held back: what a server does; it runs as you do.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from weakref import WeakSet

from agentgym.errors import ToolError, ToolFault
from agentgym.tools.driving import checkpoint
from agentgym.tools.episode import Episode
from agentgym.tools.hints import inline
from agentgym.tools.mcp_connection import Connection, loop
from agentgym.tools.mcp_sdk import Answer, Command, Listed, Remote, sdk
from agentgym.tools.mcp_server import serve_mcp
from agentgym.tools.output import MAX_OUTPUT
from agentgym.tools.signals import ToolFailed, used_up

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")


class MCPTools:
    """The tools of one MCP server; make it with `stdio` or `http`, and put it among an env's tools.

    Which tools there are is known once the server has been asked: after `async with`, or from an env's first reset on.
    All connections are held by an event loop of their own, so it does not matter from which loop or thread they are
    used. A server that dies or hangs leaves the episode unscored (`ToolFault`) and is started anew by the next call;
    what a tool answers with an error, or does not answer in time, is an observation.
    """

    def __init__(
        self,
        server: Command | Remote,
        *,
        only: Sequence[str] | None = None,
        prefix: str = "",
        per_episode: bool = False,
        timeout: float = 30.0,
        start_timeout: float = 60.0,
        parallel: bool = False,
        max_output: int = MAX_OUTPUT,
        max_calls: int = 0,
    ):
        """
        Args:
            server: where it is.
            only: the names of the tools to take, default all.
            prefix: put before each name, to tell the tools of two servers apart.
            per_episode: a server of its own for each episode, ended with it: for servers that remember. One that
                dies is then not started again, for what it remembered is gone.
            timeout: seconds of a call.
            start_timeout: seconds until a server has to be ready (one that is fetched first takes a while).
            parallel: neighbouring calls of one turn run at once.
            max_output: characters of an answer, beyond which it is cut and marked.
            max_calls: calls of one episode, of each tool. 0: no limit.
        """
        sdk()
        if not timeout > 0 or not start_timeout > 0:
            raise ToolError(f"MCP server {server}: timeout and start_timeout are in seconds and must be above 0")
        if isinstance(only, str):
            raise ToolError(f"MCP server {server}: only = {only!r}: give a list of names")
        self.server = server
        self.parallel, self.max_output, self.max_calls = parallel, max_output, max_calls
        self._only, self._prefix, self._per_episode = only, prefix, per_episode
        self._timeout, self._start_timeout = timeout, start_timeout
        self._reset()

    @classmethod
    def stdio(
        cls,
        command: str,
        args: Sequence[str] = (),
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        **options: Any,
    ) -> MCPTools:
        """A server that is a command of this machine; options as for the class."""
        if isinstance(args, str):
            raise ToolError(f"MCP server {command}: args = {args!r}: give a list, one entry an argument")
        return cls(Command(command, tuple(args), env, cwd), **options)

    @classmethod
    def http(cls, url: str, *, headers: Mapping[str, str] | None = None, **options: Any) -> MCPTools:
        """A server at a URL (streamable HTTP); options as for the class."""
        if not url.startswith(("http://", "https://")):
            raise ToolError(f"MCP server {url!r}: is no URL; write it like http://localhost:8000/mcp")
        return cls(Remote(url, headers), **options)

    def _reset(self) -> None:
        self._tools: tuple[MCPTool, ...] | None = None
        self._users: WeakSet[Any] = WeakSet()
        # touched on `loop` only
        self._shared: asyncio.Task[Connection] | None = None
        self._own: dict[int, asyncio.Task[Connection]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> MCPTools:
        return self  # one server for all envs of a registered id

    def __getstate__(self) -> dict[str, Any]:
        live = ("_tools", "_users", "_shared", "_own")
        return {name: value for name, value in self.__dict__.items() if name not in live}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def __repr__(self) -> str:
        return f"<tools of MCP server {self.server}>"

    async def __aenter__(self) -> Self:
        await self.open(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close(self)

    @property
    def tools(self) -> tuple[MCPTool, ...]:
        """The server's tools, once it has been asked."""
        if self._tools is None:
            raise ToolError(f"{self!r}: not known before it is started: use `async with`, or reset the env")
        return self._tools

    async def open(self, user: object) -> tuple[MCPTool, ...]:
        """The tools, for somebody who says `close` in the end. Raises `ToolFault` where the server does not start, and
        `ToolError` where it cannot."""
        self._users.add(user)
        if self._tools is None:
            await checkpoint()
            self._tools = self._chosen(await loop.run(self._listed()))
        return self._tools

    async def close(self, user: object) -> None:
        """Let go of the server; it ends with the last of those who opened it. Again does nothing."""
        self._users.discard(user)
        if not self._users:
            await checkpoint()
            await loop.run(self._close_all())

    def _chosen(self, listed: Sequence[Listed]) -> tuple[MCPTool, ...]:
        there = [row.name for row in listed]
        if missing := [name for name in self._only or () if name not in there]:
            raise ToolError(
                f"MCP server {self.server}: has no tool {missing[0]!r}; it has: {', '.join(there) or 'none'}"
            )
        made = tuple(MCPTool(self, row, self._prefix) for row in listed if self._only is None or row.name in self._only)
        names = [tool.name for tool in made]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ToolError(f"MCP server {self.server}: two of its tools are called {twice[0]!r}; choose by only=[...]")
        return made

    async def call(self, name: str, arguments: Mapping[str, Any], episode: Episode | None) -> Answer:
        """A call of the server's tool `name`."""
        await checkpoint()
        if self._per_episode and episode is not None:
            key = id(episode)
            if key not in self._own:
                episode.at_end(lambda: loop.run(self._close_own(key)))
            return await loop.run(self._call_own(key, name, arguments))
        return await loop.run(self._call_shared(name, arguments))

    # -- on `loop` -------------------------------------------------------------------------------------------------

    async def _listed(self) -> list[Listed]:
        return (await self._live()).tools

    async def _start(self) -> Connection:
        connection = Connection(self.server)
        await connection.open(self._start_timeout)
        return connection

    async def _live(self) -> Connection:
        """The shared connection; started where there is none that lives, once for all who ask at the same time."""
        task = self._shared
        if task is None or (task.done() and not _lives(task)):
            task = self._shared = asyncio.create_task(self._start())
        return await asyncio.shield(task)

    async def _call_shared(self, name: str, arguments: Mapping[str, Any]) -> Answer:
        return await (await self._live()).call(name, arguments, self._timeout)

    async def _call_own(self, key: int, name: str, arguments: Mapping[str, Any]) -> Answer:
        task = self._own.get(key)
        if task is None:
            if self._shared is not None and _lives(self._shared):  # it told which tools there are, and did nothing yet
                task, self._shared = self._shared, None
            else:
                task = asyncio.create_task(self._start())
            self._own[key] = task
        connection = await asyncio.shield(task)
        if not connection.alive:
            raise ToolFault(f"MCP server {self.server}: it died, and with it what it knew of this episode")
        return await connection.call(name, arguments, self._timeout)

    async def _close_own(self, key: int) -> None:
        if task := self._own.pop(key, None):
            await _close(task)

    async def _close_all(self) -> None:
        tasks = [*self._own.values(), *([self._shared] if self._shared else [])]
        self._own, self._shared = {}, None
        await asyncio.gather(*map(_close, tasks))


class MCPTool:
    """One tool of a server, as an env takes it."""

    def __init__(self, source: MCPTools, listed: Listed, prefix: str = ""):
        self._source = source
        self._listed = listed
        self.name = _NOT_IN_NAMES.sub("_", prefix + listed.name)
        self.parallel, self.max_output, self.max_calls = source.parallel, source.max_output, source.max_calls
        parameters = {"type": "object", "properties": {}, **inline(listed.schema)}
        function = {"name": self.name, "description": listed.description, "parameters": parameters}
        self.schema: Mapping[str, Any] = {"type": "function", "function": function}

    def __repr__(self) -> str:
        return f"<tool {self.name} of MCP server {self._source.server}>"

    def __deepcopy__(self, memo: dict[int, Any]) -> MCPTool:
        return self

    async def call(self, arguments: Mapping[str, Any], episode: Any = None) -> str:
        """The server's answer as text. Raises `ToolFailed` with an error that the server answers, TimeoutError, and
        `ToolFault` where the server is gone."""
        inside = episode if isinstance(episode, Episode) else None
        if self.max_calls and inside is not None and not inside.spend(self.name, self.max_calls):
            raise used_up(self.name, self.max_calls)
        answer = await self._source.call(self._listed.name, arguments, inside)
        if answer.error:
            raise ToolFailed(answer.text if answer.text.lower().startswith("error") else f"error: {answer.text}")
        return answer.text


def _lives(task: asyncio.Task[Connection]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None and task.result().alive


async def _close(task: asyncio.Task[Connection]) -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled() and task.exception() is None:
        await task.result().close()


__all__ = ["MCPTool", "MCPTools", "serve_mcp"]
