"""Which hosts and addresses the http tools may reach. What is checked is the address that is connected to."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import httpcore
import httpx

from agentgym.errors import ToolError

DEFAULT_PORTS = {"http": 80, "https": 443}
FIRST_WAIT_S = 4.0
"""Seconds for a connection while the name has further addresses."""
_NEVER = [
    ipaddress.ip_network(text)
    for text in (
        "169.254.0.0/16",  # link-local, and where clouds keep their metadata
        "fe80::/10",
        "fd00:ec2::254/128",  # EC2's metadata
        "100.100.100.200/32",  # Alibaba's
        "192.0.0.192/32",  # Oracle's
        "168.63.129.16/32",  # Azure's own services, on an address that looks public
    )
]
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_RESERVED = ipaddress.ip_network("192.0.0.0/24")


class Refused(Exception):
    """A request that is not made; the text is for the model."""


@dataclass(frozen=True, slots=True)
class Hosts:
    """An allowlist: `example.com` (its usual ports), `*.example.com` (what is under it), `example.com:8080`."""

    entries: tuple[tuple[str, int | None], ...]

    @classmethod
    def of(cls, given: Iterable[str]) -> Hosts:
        """Raises `ToolError` for an entry that is no host."""
        if isinstance(given, str):
            raise ToolError(f"hosts = {given!r}: give a list of hosts, such as [{given!r}]")
        entries = tuple(_entry(text) for text in given)
        if not entries:
            raise ToolError("hosts: give at least one host that may be reached, such as ['en.wikipedia.org']")
        return cls(entries)

    def check(self, url: httpx.URL) -> None:
        """Raises `Refused` unless the URL is one of these hosts'."""
        if url.scheme not in DEFAULT_PORTS:
            raise Refused(f"only http and https URLs can be requested, got {str(url)[:200]!r}")
        if not url.host:
            raise Refused(f"{str(url)[:200]!r} names no host; give a whole URL such as https://{self.entries[0][0]}/")
        if url.userinfo:
            raise Refused("a URL with a user name or password in it is not requested")
        host, port = host_name(url), url.port or DEFAULT_PORTS[url.scheme]
        for name, only in self.entries:
            inside = host.endswith(name[1:]) if name.startswith("*.") else host == name
            if inside and (port == only if only else port in DEFAULT_PORTS.values()):
                return
        raise Refused(f"{url.netloc.decode()} is not among the hosts that can be reached: {self}")

    def __str__(self) -> str:
        return ", ".join(f"{name}:{port}" if port else name for name, port in self.entries)


def host_name(url: httpx.URL) -> str:
    """The host in lower case and punycode, without brackets and a dot at the end."""
    return url.raw_host.decode().lower().rstrip(".").strip("[]")


def _entry(text: Any) -> tuple[str, int | None]:
    wrong = ToolError(f"hosts: {text!r} is no host; write it like example.com, *.example.com or example.com:8080")
    if not isinstance(text, str):
        raise wrong
    star = "*." if text.startswith("*.") else ""
    try:
        url = httpx.URL(f"http://{text.removeprefix('*.')}")
        host = host_name(url)
    except (httpx.InvalidURL, ValueError):
        raise wrong from None
    if not host or "*" in host or url.raw_path != b"/" or url.userinfo or url.fragment or "/" in text or "?" in text:
        raise wrong
    port = text.rpartition(":")[2]  # `url.port` hides 80
    return star + host, int(port) if url.port or (port == "80" and text.count(":") == 1) else None


def check_address(text: str, allow_private: bool) -> None:
    """Raises `Refused` for an address that is not public; those of clouds' metadata are never reached."""
    for address in _embedded(ipaddress.ip_address(text)):
        if any(address in network for network in _NEVER if network.version == address.version):
            raise Refused("its address is link-local or one of cloud metadata, which is never reached")
        if not allow_private and not _is_public(address):
            raise Refused("its address is private or local to this machine, which is not reached")


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    return address.is_global and not address.is_multicast and address not in _RESERVED


def _embedded(address: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    """The address and, where it wraps one of version 4, that one."""
    if isinstance(address, IPv4Address):
        return [address]
    if address.ipv4_mapped:
        return [address.ipv4_mapped]
    inner = [address.sixtofour] if address.sixtofour else []
    if address in _NAT64:
        inner.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return [address, *inner]


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, best first."""
    rows = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(row[4][0]) for row in rows))


class PinnedBackend(httpcore.AsyncNetworkBackend):
    """Resolves a name once, checks the address and connects to that very address, so that a name which answers
    otherwise the next time (DNS rebinding) gains nothing."""

    def __init__(self, allow_private: bool):
        self._allow_private = allow_private
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            addresses = await resolve(host, port)
        except OSError as e:
            raise httpcore.ConnectError(f"the name {host!r} cannot be resolved ({e.strerror or e})") from None
        problem: Exception = httpcore.ConnectError(f"the name {host!r} has no address")
        for left, address in enumerate(addresses, 1 - len(addresses)):
            wait = min(timeout or FIRST_WAIT_S, FIRST_WAIT_S) if left else timeout
            try:
                check_address(address, self._allow_private)
                return await self._inner.connect_tcp(address, port, wait, local_address, socket_options)
            except Refused as refused:
                problem = Refused(f"{host} is not requested: {refused}")
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as e:
                problem = e
        raise problem

    async def connect_unix_socket(self, path: str, timeout: float | None = None, socket_options: Any = None) -> Any:
        raise Refused("sockets of this machine are not reached")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class PinnedTransport(httpx.AsyncBaseTransport):
    """An httpx transport whose connections are made by `PinnedBackend`; httpx has no public way to set one."""

    def __init__(self, allow_private: bool, tls: Any):
        self._pool = httpcore.AsyncConnectionPool(ssl_context=tls, network_backend=PinnedBackend(allow_private))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        url = request.url
        answer = await self._pool.handle_async_request(
            httpcore.Request(
                request.method,
                httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        assert not isinstance(answer.stream, bytes)
        stream = _Body(answer.stream)
        return httpx.Response(answer.status, headers=answer.headers, stream=stream, extensions=answer.extensions)

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, stream: Any):
        self._stream = stream

    async def __aiter__(self) -> Any:
        async for part in self._stream:
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()
