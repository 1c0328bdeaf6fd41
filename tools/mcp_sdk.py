"""The `mcp` package, its releases 1.x and 2.x, as one small client. Everything that differs between them is here."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from agentgym.errors import ToolError

CONNECTION_CLOSED = -32000
MAX_PAGES = 100
"""Pages of a server's list of tools that are asked for."""


def sdk() -> ModuleType:
    """The package; raises `ToolError` where it is not installed."""
    try:
        import mcp
    except ImportError as e:
        if not (e.name or "").startswith("mcp"):
            raise
        raise ToolError("tools of an MCP server need the mcp package: pip install 'agentgym-train[mcp]'") from None
    module: ModuleType = mcp
    return module


@dataclass(frozen=True, slots=True)
class Command:
    """A server that is a process of ours, talked to over its stdin and stdout."""

    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] | None = None
    """Added to the few variables that a server is given (PATH, HOME and the like)."""
    cwd: str | Path | None = None

    def __str__(self) -> str:
        return " ".join([self.command, *self.args])


@dataclass(frozen=True, slots=True)
class Remote:
    """A server at a URL, talked to over streamable HTTP."""

    url: str
    headers: Mapping[str, str] | None = None

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True)
class Listed:
    """A tool as the server describes it."""

    name: str
    description: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    error: bool


class Refusal(Exception):
    """The server answered a request with an error; the text is the server's."""


class Closed(Exception):
    """The connection is no more."""


class Peer:
    """A server that has been greeted."""

    def __init__(self, client: Any):
        self._client = client

    async def list_tools(self) -> list[Listed]:
        """All of the server's tools."""
        found: list[Listed] = []
        cursor = None
        for _ in range(MAX_PAGES):
            page = (await self._ask(self._client.list_tools, **({"cursor": cursor} if cursor else {}))) or {}
            for row in page.get("tools", ()):
                found.append(Listed(row["name"], row.get("description") or "", row.get("inputSchema") or {}))
            cursor = page.get("nextCursor")
            if not cursor:
                return found
        raise Refusal(f"its list of tools has more than {MAX_PAGES} pages")

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Answer:
        result = await self._ask(self._client.call_tool, name, dict(arguments))
        return Answer(_content(result), bool(result.get("isError")))

    async def _ask(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """A request's result as it is on the wire: field names there are the same in both releases."""
        try:
            result = await method(*args, **kwargs)
        except Exception as e:
            error = getattr(e, "error", None)
            if error is None:
                raise
            if error.code == CONNECTION_CLOSED:
                raise Closed(error.message) from None
            raise Refusal(error.message) from None
        wire: dict[str, Any] = result.model_dump(mode="json", by_alias=True, exclude_none=True)
        return wire


@asynccontextmanager
async def connect(server: Command | Remote, errlog: Any, gone: Callable[[], None]) -> AsyncIterator[Peer]:
    """A greeted server. errlog: a file that takes a command's stderr. gone: called when a command's stdout ends."""
    mcp = sdk()
    streams = _command(server, errlog, gone) if isinstance(server, Command) else _remote(server)
    if hasattr(mcp, "Client"):
        async with mcp.Client(streams, cache=None) as client:
            yield Peer(client)
    else:
        async with streams as (read, write), mcp.ClientSession(read, write) as session:
            await session.initialize()
            yield Peer(session)


@asynccontextmanager
async def _command(server: Command, errlog: Any, gone: Callable[[], None]) -> AsyncIterator[tuple[Any, Any]]:
    import anyio
    from mcp.client.stdio import StdioServerParameters, stdio_client

    given = StdioServerParameters(
        command=server.command,
        args=list(server.args),
        env=dict(server.env) if server.env is not None else None,
        cwd=server.cwd,
        encoding_error_handler="replace",
    )
    passed_on, read = anyio.create_memory_object_stream[Any](0)

    async def pass_on(source: Any) -> None:  # neither release tells when a server has gone that nobody is asking
        async with passed_on:
            try:
                async for item in source:
                    await passed_on.send(item)
            except (anyio.ClosedResourceError, anyio.BrokenResourceError):
                pass
            finally:
                gone()

    async with stdio_client(given, errlog=errlog) as (source, write), anyio.create_task_group() as tasks, read:
        tasks.start_soon(pass_on, source)
        yield read, write
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def _remote(server: Remote) -> AsyncIterator[tuple[Any, Any]]:
    from mcp.client import streamable_http
    from mcp.shared._httpx_utils import create_mcp_http_client

    headers = dict(server.headers) if server.headers else None
    if hasattr(streamable_http, "streamable_http_client"):
        http = create_mcp_http_client(headers=headers)
        async with http, streamable_http.streamable_http_client(server.url, http_client=http) as streams:
            yield streams[0], streams[1]
    else:  # 1.x before 1.24
        async with streamable_http.streamablehttp_client(server.url, headers=headers) as streams:
            yield streams[0], streams[1]


def _content(result: Mapping[str, Any]) -> str:
    """What a tool answered as text; what is not text is described."""
    parts = [_described(item) for item in result.get("content", ())]
    if not parts and result.get("structuredContent") is not None:
        parts = [json.dumps(result["structuredContent"], ensure_ascii=False)]
    return "\n".join(parts) or "(nothing)"


def _described(item: Mapping[str, Any]) -> str:
    kind = item.get("type")
    if kind == "text":
        return str(item.get("text", ""))
    if kind == "resource":
        inside = item.get("resource") or {}
        if "text" in inside:
            return str(inside["text"])
        return f"[resource {inside.get('uri')}: {_size(inside.get('mimeType'), inside.get('blob'))}]"
    if kind == "resource_link":
        return f"[link to {item.get('name')}: {item.get('uri')}]"
    return f"[{kind}: {_size(item.get('mimeType'), item.get('data'))}]"


def _size(mime: Any, base64: Any) -> str:
    length = len(base64) * 3 // 4 - base64[-2:].count("=") if isinstance(base64, str) else 0
    return f"{mime or 'unknown type'}, {length:,} bytes"


def first_of(problem: BaseException) -> BaseException:
    """Of a group of exceptions the first, else the exception itself."""
    while isinstance(problem, BaseExceptionGroup):
        inside: Sequence[BaseException] = problem.exceptions
        problem = inside[0]
    return problem


def text_of(problem: BaseException) -> str:
    problem = first_of(problem)
    return f"{type(problem).__name__}: {problem}".rstrip(": ")
