"""Our own tools served by MCP over HTTP, with whichever release of the package is installed."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import agentgym as ag
from agentgym.errors import ToolError, ToolFault
from agentgym.tools import Episode, ToolSet, tool
from agentgym.tools.mcp import MCPTools
from agentgym.tools.mcp_server import http_app, mcp_server, serve_mcp
from tests.tools.test_mcp import episode

pytest.importorskip("mcp", reason="the mcp extra is not installed")


@tool
def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


@tool
def remember(word: str, where: Episode) -> list[str]:
    """Remember a word."""
    words: list[str] = where.state.setdefault("words", [])
    words.append(word)
    return words


@tool
def broken() -> object:
    """Answer with something odd."""
    return object()


class Served:
    """A server over HTTP in a thread: of our tools, where no other app is given."""

    def __init__(self, app: Any = None) -> None:
        import uvicorn

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        app = app or http_app(mcp_server(ToolSet([add, remember, broken, "calculator"]), episode()))
        self.server = uvicorn.Server(
            uvicorn.Config(app, port=self.port, log_level="error", timeout_graceful_shutdown=1)
        )
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive()
            time.sleep(0.01)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)

    def tools(self, **options: Any) -> MCPTools:
        return MCPTools.http(f"http://127.0.0.1:{self.port}/mcp", **options)


@pytest.fixture(name="served")
def _served() -> Iterator[Served]:
    served = Served()
    yield served
    served.stop()


def test_our_tools_over_http(served: Served) -> None:
    given = served.tools()
    env = ag.ToolEnv([("?", "4")], tools=[given])
    env.reset(seed=0)
    assert env.toolset.names == ("add", "remember", "broken", "calculator")
    assert env.toolset.schemas[0] == add.schema
    assert env.step(ag.call("add", a="2"))[0] == "3"
    text = env.step(ag.call("add", a="x"))[0]
    assert text.startswith("error: add: argument 'a': input should be a valid integer")
    assert env.step(ag.call("remember", word="tea"))[0] == '["tea"]'
    assert env.step(ag.call("remember", word="cup"))[0] == '["tea", "cup"]'
    assert "returned a builtins.object" in env.step(ag.call("broken"))[0]
    assert env.step(ag.call("calculator", expression="6*7"))[0] == "42"
    env.close()


def test_a_server_that_is_not_there_any_more(served: Served) -> None:
    env = ag.ToolEnv([("?", "4")], tools=[served.tools(timeout=1, start_timeout=5)])
    env.reset(seed=0)
    assert env.step(ag.call("add", a=2))[0] == "3"
    served.stop()
    for _ in range(2):
        with pytest.raises(ToolFault):
            env.step(ag.call("add", a=2))
    env.close()


def test_a_browser_page_cannot_reach_the_server_by_another_name(served: Served) -> None:
    import httpx

    answer = httpx.post(f"http://127.0.0.1:{served.port}/mcp", headers={"Host": "evil.example"}, json={})
    assert answer.status_code in (403, 421)


def test_serving_refuses_other_transports() -> None:
    with pytest.raises(ToolError, match="'stdio' or 'http'"):
        serve_mcp([add], "carrier pigeon")  # type: ignore[arg-type]


def test_a_server_made_with_the_package_s_own_class() -> None:
    try:
        from mcp.server.mcpserver import Image, MCPServer
    except ImportError:  # 1.x
        from mcp.server.fastmcp import FastMCP as MCPServer
        from mcp.server.fastmcp import Image
    server: Any = MCPServer("weather")

    @server.tool()
    def warm(city: str, days: list[int]) -> dict[str, Any]:
        """How warm it is."""
        if city == "nowhere":
            raise ValueError("no such city")
        return {"city": city, "degrees": [20 + day for day in days]}

    @server.tool(structured_output=False)
    async def picture(city: str) -> Any:
        """A picture."""
        return Image(data=b"hello", format="png")

    served = Served(server.streamable_http_app())
    env = ag.ToolEnv([("?", "4")], tools=[served.tools()])
    try:
        env.reset(seed=0)
        assert env.toolset.schemas[0]["function"]["parameters"]["required"] == ["city", "days"]
        assert json.loads(env.step(ag.call("warm", city="Oslo", days=[1, 2]))[0])["degrees"] == [21, 22]
        *_, info = env.step(ag.call("warm", city="nowhere", days=[]))
        assert "Error executing tool warm" in info["tool_errors"][0]  # 2.x does not say more
        assert "city" in env.step(ag.call("warm"))[0]
        assert env.step(ag.call("picture", city="Oslo"))[0] == "[image: image/png, 5 bytes]"
    finally:
        env.close()
        served.stop()
