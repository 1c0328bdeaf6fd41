"""The http tools against a real server on this machine, and what they refuse."""

from __future__ import annotations

import json
import socket
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import agentgym as ag
from agentgym.errors import ToolError
from agentgym.tools import ToolResult, ToolSet, addresses
from agentgym.tools.addresses import Hosts, Refused, check_address
from agentgym.tools.driving import drive
from agentgym.tools.html_text import html_text
from agentgym.tools.http import Http
from agentgym.types import ToolCall
from tests.tools.page_server import PAGE, Server, serving

server = pytest.fixture(serving, name="server")
other = pytest.fixture(serving, name="other")


def ask(http: Http, url: str, tool: str = "http_get", **more: Any) -> ToolResult:
    return drive(ToolSet([http]).run([ToolCall("0", tool, {"url": url, **more})]))[0]


def near(server: Server, **options: Any) -> Http:
    return Http(hosts=[f"127.0.0.1:{server.port}"], allow_private=True, **options)


def test_a_page(server: Server) -> None:
    http = near(server)
    assert ask(http, server.url("text")).text == "200 OK (text/plain, 5 bytes)\n\ngrüße"
    assert ask(http, server.url("html")).text == f"200 OK (text/html, {len(PAGE)} bytes)\n\nTea & co\nOne\nTwo bold"
    raw = near(server, html_as_text=False)
    assert ask(raw, server.url("html")).text.endswith(PAGE)
    assert ask(http, server.url("packed")).text.endswith("\n\nsmall")
    missing = ask(http, server.url("nothing?q=1#part"))
    assert (missing.text, missing.error) == ("404 Not Found (text/plain, 12 bytes)\n\nno such page", False)
    assert ask(http, server.url("image")).text == "200 OK (image/png, 6 bytes)\n[not text, not shown]"
    assert "/nothing?q=1" in [path for _, path, _, _ in server.seen]
    assert all("cookie" not in headers for _, _, headers, _ in server.seen)


def test_what_is_large_is_cut_as_it_comes(server: Server) -> None:
    http = near(server, max_bytes=100_000, max_output=500)
    for path in ("endless", "bomb"):
        text = ask(http, server.url(path)).text
        assert text.startswith("200 OK (")
        assert "only the first 100,000 bytes are shown" in text
        assert "more characters cut]" in text or path == "bomb"
        assert len(text) < 700
    twice = ask(http, server.url("twice"))
    assert "packed as 'gzip, gzip'" in twice.text
    assert "cannot be unpacked" in ask(http, server.url("broken")).text


def test_what_takes_long_is_given_up(server: Server) -> None:
    assert ask(near(server, timeout=0.2), server.url("drip")).text == "error: no whole answer within 0.2 s"
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        http = Http(hosts=[f"127.0.0.1:{port}"], allow_private=True, timeout=0.2)
        assert "no whole answer within 0.2 s" in ask(http, f"http://127.0.0.1:{port}/").text
    gone = ask(http, f"http://127.0.0.1:{port}/")
    assert gone.error
    assert gone.text.startswith("error: the request failed: ConnectError")


def test_other_hosts_are_refused(server: Server) -> None:
    http = Http(hosts=["example.com", "*.example.org", f"127.0.0.1:{server.port}"], allow_private=True)
    for url, part in (
        (server.url("text", "localhost"), "is not among the hosts that can be reached: example.com, *.example.org"),
        ("http://127.0.0.1:1/", "is not among the hosts"),
        ("http://example.com.evil.net/", "is not among the hosts"),
        ("http://notexample.org/", "is not among the hosts"),
        ("http://example.org/", "is not among the hosts"),
        ("http://example.com:8080/", "is not among the hosts"),
        (f"http://2130706433:{server.port}/", "is not among the hosts"),
        (f"http://user:pw@127.0.0.1:{server.port}/", "user name or password"),
        (f"http://example.com@evil.net:{server.port}/", "user name or password"),
        ("file:///etc/passwd", "only http and https"),
        ("example.com/x", "begin it with https://"),
        ("https://", "names no host"),
        ("http://[::1/", "is no URL"),
        ("http://a b/", "is no"),
        ("https://example.com/" + "x" * 9000, "longer than 8,000"),
    ):
        result = ask(http, url)
        assert result.error
        assert part in result.text, result.text
        assert result.text.startswith("error: ")
    assert not server.seen


def test_addresses_of_this_machine_are_refused(server: Server) -> None:
    result = ask(Http(hosts=[f"127.0.0.1:{server.port}", "localhost:1"]), server.url("text"))
    assert result.text == (
        "error: 127.0.0.1 is not requested: its address is private or local to this machine, which is not reached"
    )
    assert "private or local" in ask(Http(hosts=[f"localhost:{server.port}"]), server.url("text", "localhost")).text
    assert not server.seen


@pytest.mark.parametrize(
    ("address", "public", "near"),
    [
        ("93.184.216.34", True, True),
        ("2606:2800:220:1:248:1893:25c8:1946", True, True),
        ("127.0.0.1", False, True),
        ("10.1.2.3", False, True),
        ("172.16.0.1", False, True),
        ("192.168.1.1", False, True),
        ("100.64.0.1", False, True),
        ("192.0.0.8", False, True),
        ("198.18.0.1", False, True),
        ("224.0.0.1", False, True),
        ("0.0.0.0", False, True),
        ("255.255.255.255", False, True),
        ("::1", False, True),
        ("::", False, True),
        ("fc00::1", False, True),
        ("ff02::1", False, True),
        ("::ffff:127.0.0.1", False, True),
        ("64:ff9b::7f00:1", False, True),
        ("2002:7f00:1::", False, True),
        ("169.254.169.254", False, False),
        ("::ffff:169.254.169.254", False, False),
        ("64:ff9b::a9fe:a9fe", False, False),
        ("fe80::1%eth0", False, False),
        ("fd00:ec2::254", False, False),
        ("168.63.129.16", False, False),
        ("100.100.100.200", False, False),
    ],
)
def test_addresses(address: str, public: bool, near: bool) -> None:
    for allow_private, fine in ((False, public), (True, near)):
        if fine:
            check_address(address, allow_private)
        else:
            with pytest.raises(Refused):
                check_address(address, allow_private)


def test_a_name_is_resolved_once_and_its_address_is_what_is_checked(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [["127.0.0.1"], ["169.254.169.254", "10.0.0.1"], ["10.0.0.1", "127.0.0.1"]]
    asked = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return answers[len(asked) - 1]

    monkeypatch.setattr(addresses, "resolve", resolve)
    url = server.url("text", "rebinding.example")
    for left in (2, 1, 0):
        result = ask(Http(hosts=[f"rebinding.example:{server.port}"]), url)
        assert "rebinding.example is not requested" in result.text, left
    assert asked == ["rebinding.example"] * 3
    assert not server.seen
    answers.append(["127.0.0.1"])
    http = Http(hosts=[f"rebinding.example:{server.port}"], allow_private=True)
    assert ask(http, url).text.endswith("grüße")
    assert server.seen[0][2]["host"] == f"rebinding.example:{server.port}"


def test_a_name_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(addresses, "resolve", resolve)
    text = ask(Http(hosts=["nowhere.example"]), "https://nowhere.example/").text
    assert text.endswith("the name 'nowhere.example' cannot be resolved (Name or service not known)")


def test_redirects(server: Server, other: Server) -> None:
    both = Http(hosts=[f"127.0.0.1:{server.port}", f"127.0.0.1:{other.port}"], allow_private=True, max_redirects=2)
    there = ask(both, server.url(f"to/302/{other.url('text')}")).text
    assert there == f"[redirected to {other.url('text')}]\n200 OK (text/plain, 5 bytes)\n\ngrüße"
    assert ask(both, server.url("to/301//text")).text.endswith("grüße")
    assert "more than 2 redirects" in ask(both, server.url("round")).text
    one = near(server)
    assert "is not among the hosts" in ask(one, server.url(f"to/302/{other.url('text')}")).text
    assert "only http and https" in ask(one, server.url("to/302/file:///etc/passwd")).text
    assert len(other.seen) == 1
    name = Http(hosts=[f"127.0.0.1:{server.port}", "localhost"], allow_private=True)
    assert "is not among" in ask(name, server.url("to/302/http://169.254.169.254/latest/")).text


def test_credentials_stay_with_their_host(server: Server, other: Server) -> None:
    hosts = [f"127.0.0.1:{server.port}", f"localhost:{other.port}"]
    key = {"127.0.0.1": {"Authorization": "Bearer secret"}}
    http = Http(hosts, ["GET", "POST"], headers=key, allow_private=True)
    target = other.url("text", "localhost")
    assert "grüße" in ask(http, server.url(f"to/302/{target}")).text
    given = {"X-Key": "mine", "Authorization": "Basic x"}
    moved = ask(http, server.url(f"to/302/{target}"), "http_request", method="GET", headers=given)
    assert "grüße" in moved.text
    assert server.seen[0][2]["authorization"] == "Bearer secret"
    assert server.seen[1][2]["x-key"] == "mine"
    for _, _, headers, _ in other.seen:
        assert not {"authorization", "x-key", "cookie"} & headers.keys()
    sent = ask(http, server.url(f"to/307/{target}"), "http_request", method="POST", body="password=1")
    assert "redirects the POST to" in sent.text
    assert len(other.seen) == 2
    plain = Http(["127.0.0.1"], headers=key)
    assert "authorization" not in plain._headers(httpx.URL("http://127.0.0.1/"), httpx.Headers())
    assert "authorization" in plain._headers(httpx.URL("https://127.0.0.1/"), httpx.Headers())


def test_other_methods(server: Server) -> None:
    http = near(server, methods=["GET", "POST", "HEAD"])
    assert ToolSet([http]).names == ("http_get", "http_request")
    assert "method: 'GET' | 'POST' | 'HEAD'" in ask(http, server.url("text"), "http_request", method="TRACE").text
    ask(http, server.url("text"), "http_request", method="POST", body=json.dumps({"a": "ä"}))
    assert server.seen[-1][0] == "POST"
    assert json.loads(server.seen[-1][3]) == {"a": "ä"}
    assert ask(http, server.url("text"), "http_request", method="HEAD").text == "200 OK (text/plain, 0 bytes)"
    see = ask(http, server.url("to/303//text"), "http_request", method="POST", body="x")
    assert see.text.endswith("grüße")
    assert (server.seen[-1][0], server.seen[-1][3]) == ("GET", b"")
    kept = ask(http, server.url("to/307//text"), "http_request", method="POST", body="x")
    assert kept.text.endswith("grüße")
    assert (server.seen[-1][0], server.seen[-1][3]) == ("POST", b"x")
    count = len(server.seen)
    for headers, part in (
        ({"Host": "evil"}, "'Host' cannot be set"),
        ({"proxy-authorization": "x"}, "cannot be set"),
        ({"Metadata-Flavor": "Google"}, "cannot be set"),
        ({"X-A": "b\r\nHost: evil"}, "the request failed"),
        ({"X-Ä": "b"}, "plain ASCII"),
    ):
        assert part in ask(http, server.url("text"), "http_request", method="GET", headers=headers).text
    assert len(server.seen) == count
    big = ask(http, server.url("text"), "http_request", method="POST", body="x" * (2 << 20))
    assert "longer than 1,048,576 bytes" in big.text


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"hosts": "example.com"}, "give a list of hosts"),
        ({"hosts": []}, "at least one host"),
        ({"hosts": ["https://example.com"]}, "is no host; write it like"),
        ({"hosts": ["example.com/path"]}, "is no host"),
        ({"hosts": ["*"]}, "is no host"),
        ({"hosts": ["a.*.com"]}, "is no host"),
        ({"hosts": [3]}, "is no host"),
        ({"hosts": [""]}, "is no host"),
        ({"hosts": ["a.b"], "methods": ["FETCH"]}, "no method 'FETCH'"),
        ({"hosts": ["a.b"], "methods": "GET"}, "give a list"),
        ({"hosts": ["a.b"], "headers": {"c.d": {"X": "y"}}}, "not among the hosts"),
        ({"hosts": ["a.b"], "timeout": 0}, "above 0"),
    ],
)
def test_bad_options(options: dict[str, Any], part: str) -> None:
    with pytest.raises(ToolError, match=part.replace("*", r"\*")):
        Http(**options)


def test_hosts_are_compared_as_names() -> None:
    hosts = Hosts.of(["Bücher.example", "*.wiki.org", "[::1]:8080", "a.b:80"])
    for url in (
        "https://xn--bcher-kva.example/",
        "https://BÜCHER.example./x",
        "http://en.wiki.org/",
        "http://[::1]:8080/",
        "http://a.b/",
    ):
        hosts.check(httpx.URL(url))
    for url in ("http://wiki.org/", "http://[::1]/", "https://a.b/", "http://xn--bcher-kva.example.org/"):
        with pytest.raises(Refused):
            hosts.check(httpx.URL(url))


def test_in_an_env(server: Server) -> None:
    env = ag.ToolEnv([("?", "grüße")], tools=[near(server, max_calls=1)])
    env.reset(seed=0)
    assert "grüße" in env.step(ag.call("http_get", url=server.url("text")))[0]
    assert "called once" in env.step(ag.call("http_get", url=server.url("text")))[0]
    assert env.step("grüße")[1] == 1.0


PIECES = ["<p>", "</p>", "<!--", "-->", "<script>", "</script>", "<", ">", "&", "&amp;", "<br/>", "a", "é\n", "<title>"]


@pytest.mark.timeout(30)  # no page takes time beyond its length
@settings(max_examples=150)
@given(st.lists(st.sampled_from(PIECES)))
@example(["<!--"] * 50_000)
@example(["<a "] * 100_000)
@example(["<script>"] * 50_000)
@example(["<title"] * 100_000)
@example(["<script></script"] * 50_000)
def test_any_page_becomes_text(parts: list[str]) -> None:
    text = html_text("".join(parts))
    assert "</p>" not in text or "<</p>" in "".join(parts)
    assert all(line.strip() for line in text.splitlines())


def test_html_of_all_kinds() -> None:
    assert html_text("a<script>if (a<b) {}</SCRIPT >b") == "ab"
    assert html_text("<ul><li>1<li>2</ul>3 < 4 &lt; 5") == "1\n2\n3 < 4 < 5"
    assert html_text("<!doctype html><p title='x'>x<!-- <p>y -->z") == "xz"
    assert html_text("İ<script>hidden</script>shown") == "İshown"
    assert html_text("kept<style>never closed") == "kept"
