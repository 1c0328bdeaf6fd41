"""HTTP tools: `Http(hosts=[...])` lets an agent request pages of the hosts that are named, and of no others.

Not held back: what an allowed host does with a request. Name hosts that you trust with what the agent knows.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import httpcore
import httpx

from agentgym.errors import ToolError
from agentgym.tools.addresses import Hosts, PinnedTransport, Refused, host_name
from agentgym.tools.decorator import FunctionTool
from agentgym.tools.html_text import html_text
from agentgym.tools.output import MAX_OUTPUT
from agentgym.tools.signals import ToolFailed

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
MAX_REQUEST = 1 << 20
"""Bytes of a request's body."""
_OURS = re.compile(
    r"host|content-length|transfer-encoding|connection|keep-alive|upgrade|te|trailer|expect|accept-encoding|forwarded"
    r"|(proxy|x-forwarded|x-real|x-metadata|metadata)(-.*)?",
    re.I,
)
_TEXTUAL = re.compile(r"text/|.*(json|xml|javascript|yaml|csv|x-www-form-urlencoded)")


@dataclass(frozen=True)
class Http:
    """`ToolSet([Http(hosts=["en.wikipedia.org"])])`: the tool `http_get` and, for other methods, `http_request`.

    Requests go to `hosts` only and to public addresses only, redirects included; see `Hosts` for how they are
    written. The address is checked when the connection is made. Proxies, cookies and credentials of the machine are
    not used. What is refused, and what fails on the way, is an observation.
    """

    hosts: Iterable[str]
    methods: Iterable[str] = ("GET",)
    """More than GET and HEAD lets the agent change things over there."""
    headers: Mapping[str, Mapping[str, str]] | None = None
    """Headers by host, for example a key: sent to that very host and over https only (http too with allow_private),
    never shown."""
    allow_private: bool = False
    """Reach private and loopback addresses as well, for tests and services of your own."""
    timeout: float = 20.0
    """Seconds of a call: names, connections, redirects and all of the body."""
    max_bytes: int = 1 << 20
    """Bytes of a body that are read, as it is sent and unpacked; what is more is cut and marked."""
    max_redirects: int = 5
    html_as_text: bool = True
    """Show HTML as its text."""
    max_output: int = MAX_OUTPUT
    max_calls: int = 0
    """Calls of an episode, of each tool."""
    _hosts: Hosts = field(init=False, repr=False)
    _methods: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        allowed = Hosts.of(self.hosts)
        if isinstance(self.methods, str):
            raise ToolError(f"Http: methods = {self.methods!r}: give a list, such as [{self.methods!r}]")
        methods = tuple(str(method).upper() for method in self.methods)
        if unknown := [method for method in methods if method not in METHODS]:
            raise ToolError(f"Http: no method {unknown[0]!r} (there are: {', '.join(METHODS)})")
        if not self.timeout > 0 or self.max_bytes < 1 or self.max_redirects < 0:
            raise ToolError("Http: timeout and max_bytes must be above 0, max_redirects 0 or more")
        for name in self.headers or ():
            if name not in [host for host, _ in allowed.entries]:
                raise ToolError(f"Http: headers for {name!r}, which is not among the hosts: {allowed}")
        object.__setattr__(self, "_hosts", allowed)
        object.__setattr__(self, "_methods", methods)

    def __iter__(self) -> Iterator[FunctionTool]:
        return iter(self.tools)

    def __deepcopy__(self, memo: dict[int, Any]) -> Http:
        return self

    @cached_property
    def tools(self) -> tuple[FunctionTool, ...]:
        """`http_get`, and `http_request` where there are other methods."""
        made = []
        if "GET" in self._methods:
            made.append(self._tool(self._get_tool(), parallel=True))
        if others := [method for method in self._methods if method != "GET"]:
            made.append(self._tool(self._request_tool(["GET", *others] if made else others), parallel=False))
        if not made:
            raise ToolError("Http: methods is empty; give at least GET")
        return tuple(made)

    def _tool(self, fn: Any, parallel: bool) -> FunctionTool:
        told = f"{fn.__doc__.splitlines()[0]} Hosts: {self._hosts}."
        return FunctionTool(
            fn, description=told, parallel=parallel, max_output=self.max_output, max_calls=self.max_calls
        )

    def _get_tool(self) -> Any:
        async def http_get(url: str) -> str:
            """Get a page from the web.

            Args:
                url: the whole URL, with https://
            """
            return await self.fetch("GET", url)

        return http_get

    def _request_tool(self, methods: list[str]) -> Any:
        async def http_request(method: str, url: str, body: str = "", headers: dict[str, str] | None = None) -> str:
            """Make an HTTP request.

            Args:
                method: the method
                url: the whole URL, with https://
                body: what to send
                headers: headers to send, such as {"Content-Type": "application/json"}
            """
            return await self.fetch(method, url, body, headers or {})

        http_request.__annotations__["method"] = Literal[tuple(methods)]
        return http_request

    async def fetch(self, method: str, url: str, body: str = "", headers: Mapping[str, str] | None = None) -> str:
        """The answer as text: its status, type and body. Raises `ToolFailed` with what went wrong."""
        try:
            async with asyncio.timeout(self.timeout):
                return await self._follow(method, _parsed(url), body.encode(errors="replace"), _own(headers or {}))
        except Refused as refused:
            problem = str(refused)
        except TimeoutError:
            problem = f"no whole answer within {self.timeout:g} s"
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as e:
            problem = f"the request failed: {e or type(e).__name__}"
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, ssl.SSLError, OSError) as e:
            problem = f"the request failed: {type(e).__name__}: {e}".rstrip(": ")
        raise ToolFailed(f"error: {problem}")

    async def _follow(self, method: str, url: httpx.URL, body: bytes, headers: httpx.Headers) -> str:
        if len(body) > MAX_REQUEST:
            raise Refused(f"the body is longer than {MAX_REQUEST:,} bytes")
        came = ""
        # a client of its own for each call: no cookies and no connections are shared between episodes
        transport = PinnedTransport(self.allow_private, self._tls)
        async with httpx.AsyncClient(transport=transport, trust_env=False, timeout=None) as client:
            for _ in range(self.max_redirects + 1):
                self._hosts.check(url)
                request = client.build_request(method, url, content=body or None, headers=self._headers(url, headers))
                response = await client.send(request, stream=True)
                try:
                    if (target := _location(response)) is None:
                        return came + await self._shown(response)
                finally:
                    await response.aclose()
                method, body = _next_method(response.status_code, method), body
                if method in ("GET", "HEAD"):
                    body = b""
                if _origin(target) != _origin(url):
                    if body or method not in ("GET", "HEAD"):
                        raise Refused(f"{url.host} redirects the {method} to {target}, where it is not sent")
                    headers = httpx.Headers({"accept": headers["accept"]} if "accept" in headers else {})
                client.cookies.clear()
                url, came = target, f"[redirected to {target}]\n"
        raise Refused(f"more than {self.max_redirects} redirects, the last to {str(url)[:300]}")

    def _headers(self, url: httpx.URL, given: httpx.Headers) -> httpx.Headers:
        own = (self.headers or {}).get(host_name(url), {}) if url.scheme == "https" or self.allow_private else {}
        sent = httpx.Headers({"User-Agent": "agentgym", "Accept": "*/*", "Accept-Encoding": "gzip"})
        sent.update(given)
        sent.update(own)
        return sent

    async def _shown(self, response: httpx.Response) -> str:
        raw, more = await _read(response, self.max_bytes)
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        size = f"only the first {len(raw):,} bytes are shown" if more else f"{len(raw):,} bytes"
        what = ", ".join(part for part in (kind, size) if part)
        head = f"{response.status_code} {response.reason_phrase} ({what})".replace("  ", " ")
        if not raw:
            return head
        if b"\0" in raw[:4096] or (kind and not _TEXTUAL.match(kind)):
            return f"{head}\n[not text, not shown]"
        text = _decoded(raw, response.charset_encoding)
        if self.html_as_text and ("html" in kind or (not kind and text.lstrip()[:9].lower() == "<!doctype")):
            text = html_text(text)
        return f"{head}\n\n{text}"

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return httpx.create_ssl_context(trust_env=False)


def _parsed(text: str) -> httpx.URL:
    url = text.strip()
    if len(url) > 8000:
        raise Refused("the URL is longer than 8,000 characters")
    if "://" not in url:
        raise Refused(f"{url[:200]!r} is no whole URL; begin it with https://")
    try:
        parsed = httpx.URL(url)
        host_name(parsed)
    except (httpx.InvalidURL, ValueError) as e:
        raise Refused(f"{url[:200]!r} is no URL: {e}") from None
    return parsed.copy_with(fragment=None)


def _own(headers: Mapping[str, str]) -> httpx.Headers:
    for name in headers:
        if _OURS.fullmatch(name.strip()):
            raise Refused(f"the header {name!r} cannot be set")
    try:
        return httpx.Headers({name: str(value) for name, value in headers.items()})
    except UnicodeEncodeError:
        raise Refused("headers are plain ASCII") from None


def _location(response: httpx.Response) -> httpx.URL | None:
    if response.status_code not in (301, 302, 303, 307, 308) or "location" not in response.headers:
        return None
    try:
        return response.request.url.join(response.headers["location"]).copy_with(fragment=None)
    except (httpx.InvalidURL, ValueError):
        raise Refused("the answer is a redirect to something that is no URL") from None


def _next_method(status: int, method: str) -> str:
    """As browsers have it: 303 turns all but HEAD into GET, 301 and 302 turn POST into GET, 307 and 308 nothing."""
    if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
        return "GET"
    return method


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, host_name(url), url.port


async def _read(response: httpx.Response, limit: int) -> tuple[bytes, bool]:
    """The body, unpacked, as far as `limit` bytes, and whether there was more. A packed bomb is unpacked no further."""
    packing = response.headers.get("content-encoding", "identity").strip().lower()
    if packing not in ("identity", "", "gzip", "x-gzip", "deflate"):
        raise Refused(f"the answer is packed as {packing[:50]!r}, which is not unpacked")
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 32) if packing not in ("identity", "") else None
    body, seen = bytearray(), 0
    async for chunk in response.aiter_raw(1 << 16):
        seen += len(chunk)
        try:
            body += chunk if unpack is None else unpack.decompress(chunk, limit + 1 - len(body))
        except zlib.error as e:
            raise Refused(f"the answer cannot be unpacked ({e})") from None
        if len(body) > limit or seen > limit:
            return bytes(body[:limit]), True
    return bytes(body), False


def _decoded(raw: bytes, charset: str | None) -> str:
    try:
        return raw.decode(charset or "utf-8", errors="replace")
    except (LookupError, ValueError):
        return raw.decode(errors="replace")
