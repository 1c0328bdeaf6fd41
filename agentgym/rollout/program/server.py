"""The endpoint: HTTP on loopback in the worker's own event loop, one key for each episode under way."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, TypeAlias

from agentgym.errors import ConfigError
from agentgym.rollout.program import wire
from agentgym.rollout.program.wire import WireError

if TYPE_CHECKING:
    from agentgym.rollout.program.conversation import ProgramConversation

HOST = "127.0.0.1"
LARGEST = 64 << 20
"""Bytes of a request."""
IDLE = 600
"""Seconds that an idle connection is kept; clients are to be the first to close theirs."""

ASGI: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[ASGI]]
Send: TypeAlias = Callable[[ASGI], Awaitable[None]]


class EndpointServer:
    """Knows which episode a key belongs to, and nothing else of it."""

    def __init__(self) -> None:
        self._open: dict[str, ProgramConversation] = {}
        self._server: Any = None
        self._serving: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self.base_url = ""

    async def start(self) -> str:
        """The base URL; the server is started at the first call. Raises `ConfigError` where uvicorn is missing."""
        async with self._starting:
            if not self.base_url:
                await self._start()
        return self.base_url

    def open(self, conversation: ProgramConversation) -> str:
        """A key for an episode."""
        key = f"sk-agentgym-{secrets.token_urlsafe(24)}"
        self._open[key] = conversation
        return key

    def shut(self, key: str) -> None:
        self._open.pop(key, None)

    async def aclose(self) -> None:
        """End the server, and what it is still answering."""
        serving, self._serving, self.base_url = self._serving, None, ""
        if serving is not None:
            self._server.should_exit = self._server.force_exit = True
            with suppress(asyncio.CancelledError):
                await serving

    async def _start(self) -> None:
        try:
            import uvicorn
        except ImportError:
            raise ConfigError(
                "rollout.agent needs the endpoint's HTTP server: pip install 'agentgym-train[agents]'"
            ) from None

        listening = socket.create_server((HOST, 0), backlog=2048)
        config = uvicorn.Config(
            self, lifespan="off", ws="none", http="h11", log_config=None, log_level="critical", access_log=False,
            timeout_keep_alive=IDLE, server_header=False, date_header=False, timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._server.capture_signals = nullcontext  # they are for whoever owns this process
        self._serving = asyncio.create_task(self._server.serve(sockets=[listening]), name="endpoint")
        while not self._server.started:
            if self._serving.done():
                self._serving.result()
            await asyncio.sleep(0.002)
        _pass_by_proxies()
        self.base_url = f"http://{HOST}:{listening.getsockname()[1]}/v1"

    async def __call__(self, scope: ASGI, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] != "http":
            return
        try:
            await self._answer(scope, receive, send)
        except WireError as e:
            await _send(send, e.status, [e.body()])
        except Exception as e:  # a defect of ours: clients are to be told in the form that they read
            await _send(send, 500, [WireError(500, f"{type(e).__name__}: {e}").body()])
            raise

    async def _answer(self, scope: ASGI, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"].rstrip("/")
        conversation = self._conversation(scope)
        if path == "/v1/models" or path.startswith("/v1/models/"):
            _check_method(method, "GET")
            await _send(send, 200, [wire.models() if path == "/v1/models" else wire.model()])
        elif path == "/v1/chat/completions":
            _check_method(method, "POST")
            ask = wire.read_ask(await _body(receive))
            reply = await _unless_gone(conversation.complete(ask), receive)
            if reply is None:
                return
            if ask.stream:
                await _send(send, 200, wire.stream(reply, ask.usage), b"text/event-stream; charset=utf-8")
            else:
                await _send(send, 200, [wire.completion(reply)])
        else:
            hint = ""
            if path == "/v1/responses":
                hint = "; with openai-agents: OpenAIChatCompletionsModel, or set_default_openai_api('chat_completions')"
            raise WireError(404, f"{method} {path}: there are /v1/chat/completions and /v1/models{hint}")

    def _conversation(self, scope: ASGI) -> ProgramConversation:
        header = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, key = header.decode("latin-1").partition(" ")
        found = self._open.get(key.strip()) if scheme.lower() == "bearer" else None
        if found is None:
            text = "Incorrect API key: each episode has its own, which its program is given; or the episode is over"
            raise WireError(401, text, code="invalid_api_key")
        return found


def _check_method(method: str, wanted: str) -> None:
    if method != wanted:
        raise WireError(405, f"{method} is not for this path: {wanted}")


async def _body(receive: Receive) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise WireError(400, "the client went away")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > LARGEST:
            raise WireError(413, f"a request has at most {LARGEST >> 20} MiB")
        if not message.get("more_body"):
            return b"".join(parts)


async def _unless_gone(work: Any, receive: Receive) -> wire.Reply | None:
    """The reply, or None where the client went away before it: what nobody has read is no turn of the episode."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            return None
        if working.cancelled():
            raise WireError(400, "this episode is over", code="episode_over")
        reply: wire.Reply = working.result()
        return reply
    finally:
        leaving.cancel()
        working.cancel()


async def _send(send: Send, status: int, parts: Any, kind: bytes = b"application/json") -> None:
    headers = [(b"content-type", kind)]
    if isinstance(parts, list):
        headers.append((b"content-length", str(sum(map(len, parts))).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _pass_by_proxies() -> None:
    """No proxy leads back to this process, and programs read the environment for theirs."""
    if not any(os.environ.get(name) for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")):
        return
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [host for host in os.environ.get(name, "").split(",") if host]
        if HOST not in hosts:
            os.environ[name] = ",".join([*hosts, HOST])
