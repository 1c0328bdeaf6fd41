"""A set of tools served as an MCP server, so that any MCP client can use them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal

import numpy as np

from agentgym.errors import AgentGymError, ToolError
from agentgym.tools.episode import Episode
from agentgym.tools.mcp_sdk import sdk
from agentgym.tools.toolset import ToolSet
from agentgym.types import Task, ToolCall


def serve_mcp(
    tools: Iterable[Any],
    transport: Literal["stdio", "http"] = "stdio",
    *,
    name: str = "agentgym",
    host: str = "127.0.0.1",
    port: int = 8000,
    sandbox: Mapping[str, Any] | None = None,
) -> None:
    """Serve tools until the client leaves (stdio) or the process is stopped (http, at http://HOST:PORT/mcp).

    tools: as an env takes them. Tools that want an episode share one, as long as the server lives; `sandbox` is its
    sandbox's settings. Raises `ToolError` where the mcp package is missing.
    """
    if transport not in ("stdio", "http"):
        raise ToolError(f"serve_mcp: transport must be 'stdio' or 'http', got {transport!r}")
    toolset = tools if isinstance(tools, ToolSet) else ToolSet(tools)
    episode = Episode(Task("mcp", ""), np.random.default_rng(), sandbox_settings=dict(sandbox or {}))

    async def serve() -> None:
        try:
            await toolset.open(episode)
            server = mcp_server(toolset, episode, name)
            await (_over_stdio(server) if transport == "stdio" else _over_http(server, host, port))
        finally:
            await episode.release()
            await toolset.close(episode)

    asyncio.run(serve())


def mcp_server(tools: ToolSet, episode: Episode | None = None, name: str = "agentgym") -> Any:
    """The SDK's own (low-level) `Server` with these tools, to run in one's own way."""
    sdk()
    from mcp import types
    from mcp.server.lowlevel import Server

    def listed() -> list[Any]:
        return [types.Tool.model_validate(_described(tool.schema["function"])) for tool in tools]

    async def answer(tool: str, arguments: Mapping[str, Any] | None) -> Any:
        text, error = await _answered(tools, tool, arguments or {}, episode)
        return types.CallToolResult.model_validate({"content": [{"type": "text", "text": text}], "isError": error})

    if hasattr(sdk(), "Client"):

        async def on_list(_: Any, __: Any) -> Any:
            return types.ListToolsResult(tools=listed())

        async def on_call(_: Any, params: Any) -> Any:
            return await answer(params.name, params.arguments)

        return Server(name, on_list_tools=on_list, on_call_tool=on_call)
    server = Server(name)

    async def list_tools() -> list[Any]:
        return listed()

    server.list_tools()(list_tools)
    server.call_tool(validate_input=False)(answer)  # ours says more
    return server


async def _answered(tools: ToolSet, name: str, arguments: Mapping[str, Any], episode: Any) -> tuple[str, bool]:
    try:
        result = await tools.run_one(ToolCall("mcp", name, dict(arguments)), episode)
    except AgentGymError as fault:  # there is no episode to leave unscored
        return f"error: {fault}", True
    return result.text, result.error


def _described(function: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": function["name"],
        "description": function.get("description", ""),
        "inputSchema": {"type": "object", **function.get("parameters", {})},
    }


async def _over_stdio(server: Any) -> None:
    from mcp.server.stdio import stdio_server

    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


async def _over_http(server: Any, host: str, port: int) -> None:
    import uvicorn

    settings = uvicorn.Config(http_app(server, host), host=host, port=port, log_level="warning")
    await uvicorn.Server(settings).serve()


def http_app(server: Any, host: str = "127.0.0.1") -> Any:
    """An ASGI app that answers at /mcp."""
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from mcp.server.transport_security import TransportSecuritySettings
    from starlette.applications import Starlette
    from starlette.routing import Route

    names = ["127.0.0.1", "localhost", "[::1]"]
    safe = TransportSecuritySettings(  # a page in a browser must not reach it by a name that resolves to us
        enable_dns_rebinding_protection=host in ("127.0.0.1", "localhost", "::1"),
        allowed_hosts=[f"{name}:*" for name in names],
        allowed_origins=[f"http://{name}:*" for name in names],
    )
    manager = StreamableHTTPSessionManager(app=server, security_settings=safe)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        async with manager.run():
            yield

    class Endpoint:  # an object, since Starlette takes a function for a view
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await manager.handle_request(scope, receive, send)

    return Starlette(routes=[Route("/mcp", endpoint=Endpoint())], lifespan=lifespan)
