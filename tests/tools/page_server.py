"""A server of odd pages on loopback."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BOMB = gzip.compress(gzip.compress(bytes(1 << 24)) + bytes(1 << 26))


PAGE = "<html><head><title>Tea &amp; co</title><style>p{}</style></head><body><p>One<p>Two <b>bold</b></body></html>"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str, dict[str, str], bytes]]

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        kind = self.path[1:].partition("/")[0]
        getattr(self, f"go_{kind}", self.go_missing)()

    do_POST = do_PUT = do_DELETE = do_HEAD = do_GET  # noqa: N815

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def go_missing(self) -> None:
        self.answer(b"no such page", 404, Content_Type="text/plain")

    def go_text(self) -> None:
        self.answer("grüße".encode("latin-1"), Content_Type="text/plain; charset=latin-1", Set_Cookie="a=b")

    def go_html(self) -> None:
        self.answer(PAGE.encode(), Content_Type="text/html")

    def go_packed(self) -> None:
        self.answer(gzip.compress(b"small"), Content_Type="text/plain", Content_Encoding="gzip")

    def go_bomb(self) -> None:
        self.answer(BOMB, Content_Type="text/plain", Content_Encoding="gzip")

    def go_twice(self) -> None:
        self.answer(BOMB, Content_Type="text/plain", Content_Encoding="gzip, gzip")

    def go_broken(self) -> None:
        self.answer(b"not packed", Content_Encoding="gzip")

    def go_image(self) -> None:
        self.answer(b"\x89PNG\0\0", Content_Type="image/png")

    def go_endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"x" * 65536)
        except OSError:
            self.close_connection = True

    def go_drip(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"x")
                time.sleep(0.01)
        except OSError:
            self.close_connection = True

    def go_to(self) -> None:
        status, _, target = self.path.removeprefix("/to/").partition("/")
        self.answer(b"", int(status), Location=target)

    def go_round(self) -> None:
        self.answer(b"", 302, Location="/round")

    def log_message(self, *_: Any) -> None: ...


class Server:
    def __init__(self) -> None:
        self.handler = type("H", (Handler,), {"seen": []})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self.handler)
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def seen(self) -> list[tuple[str, str, dict[str, str], bytes]]:
        return self.handler.seen

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}/{path}"


def serving() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()
