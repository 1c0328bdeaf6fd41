"""HTTP to one SGLang server: JSON in and out, and every way in which that fails as a fault that a user understands."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import httpx

from agentgym.errors import ConfigError, EngineFault, EngineGone

CONNECT_SECONDS = 10.0
SHOWN = 300
"""Characters of a server's own words in an error."""


class Missing(EngineFault):
    """The server has no such endpoint: it is of another version."""


class ServerClient:
    """Asks one server. `timeout`: seconds that a request may take where the call does not say otherwise.

    Raises `EngineGone` where there is no connection or no answer in time, `Missing` for an endpoint it does not have,
    and `EngineFault` with the server's own words for what it refuses.
    """

    def __init__(self, url: str, *, timeout: float = 300.0):
        self.url = url.rstrip("/")
        self.name = f"SGLang server {self.url}"
        self.timeout = timeout
        self._options = _options(self.url)
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def ask_now(self, path: str, body: Mapping[str, Any] | None = None, *, timeout: float = 30.0) -> Any:
        """GET (POST where there is a body), blocking: for what is asked before any event loop runs."""
        try:
            with httpx.Client(**self._options, timeout=httpx.Timeout(timeout, connect=CONNECT_SECONDS)) as client:
                answer = client.get(path) if body is None else client.post(path, content=json.dumps(body).encode())
        except httpx.TimeoutException:
            raise EngineGone(self._silence(path, timeout)) from None
        except httpx.HTTPError as e:
            raise EngineGone(self._unreachable(e)) from None
        return self._read(path, answer)

    async def get(self, path: str, *, timeout: float | None = None) -> Any:
        return await self._ask("GET", path, None, timeout)

    async def post(self, path: str, body: Mapping[str, Any], *, timeout: float | None = None) -> Any:
        return await self._ask("POST", path, json.dumps(body).encode(), timeout)

    async def aclose(self) -> None:
        if self._client is not None and self._loop is asyncio.get_running_loop():
            await self._client.aclose()
        self._client = None

    async def _ask(self, method: str, path: str, content: bytes | None, timeout: float | None) -> Any:
        seconds = self.timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(seconds):  # httpx's own is for each read: a trickle would never end
                answer = await self._here().request(method, path, content=content)
        except (TimeoutError, httpx.TimeoutException):
            raise EngineGone(self._silence(path, seconds)) from None
        except httpx.HTTPError as e:
            raise EngineGone(self._unreachable(e)) from None
        return self._read(path, answer)

    def _here(self) -> httpx.AsyncClient:
        """The client of the running event loop: connections cannot be used from another."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            # a request lasts as long as its sampling, and hundreds are under way at once
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
            timeout = httpx.Timeout(None, connect=CONNECT_SECONDS)
            self._client = httpx.AsyncClient(**self._options, limits=limits, timeout=timeout)
            self._loop = loop
        return self._client

    def _read(self, path: str, answer: httpx.Response) -> Any:
        if answer.status_code in (404, 405):
            raise Missing(f"{self.name}: has no /{path} (HTTP {answer.status_code}): is it an SGLang server?")
        if answer.status_code != 200:
            raise EngineFault(f"{self.name}: /{path}: HTTP {answer.status_code}: {_words(answer)}")
        if not answer.content:
            return {}
        try:
            return answer.json()
        except ValueError:
            shown = " ".join(answer.text.split())[:80]
            raise EngineFault(
                f"{self.name}: /{path} answered {shown!r}, which is not JSON: is it an SGLang server?"
            ) from None

    def _silence(self, path: str, seconds: float) -> str:
        return f"{self.name}: took the request /{path} and gave no answer within {seconds:g} s"

    def _unreachable(self, error: Exception) -> str:
        return f"{self.name}: cannot be reached: {str(error) or type(error).__name__}"


def _options(url: str) -> dict[str, Any]:
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as e:
        raise ConfigError(f"engine.urls: {url!r} cannot be read: {e}") from None
    if parts.scheme not in ("http", "https") or not parts.host:
        raise ConfigError(f"engine.urls: {url!r}: expected http://HOST:PORT")
    if parts.path not in ("", "/"):
        raise ConfigError(
            f"engine.urls: {url!r}: expected http://HOST:PORT without a path (it is not the /v1 of a chat)"
        )
    return {
        "base_url": url,
        "headers": {"content-type": "application/json"},
        "trust_env": parts.host not in ("localhost", "127.0.0.1", "::1"),  # no proxy leads back to this machine
    }


def _words(answer: httpx.Response) -> str:
    """What the server said went wrong."""
    try:
        body = answer.json()
    except ValueError:
        body = answer.text
    said: Any = body
    if isinstance(body, dict):
        error = body.get("error", body)
        said = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(said).split())[:SHOWN] or answer.reason_phrase
