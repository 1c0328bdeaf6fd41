"""An OpenAI-compatible endpoint on loopback that answers as a test says: good, slow, broken."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Reply = str | tuple[int, bytes] | tuple[int, dict[str, str], bytes]
"""What the model says, or status (, headers) and body."""


@dataclass
class Server:
    """`reply(body, number)` answers the number-th chat request (from 0)."""

    reply: Callable[[dict[str, Any], int], Reply]
    models: list[str] = field(default_factory=lambda: ["stock-clerk"])
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    url: str = ""
    released: threading.Event = field(default_factory=threading.Event)
    """Set at the end: hanging replies wait for it."""
    under_way: int = 0
    most: int = 0
    """Requests at once, at most."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, body: dict[str, Any], key: str | None) -> tuple[int, dict[str, str], bytes]:
        with self.lock:
            number = len(self.bodies)
            self.bodies.append(body)
            self.keys.append(key)
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        said = self.reply(body, number)
        with self.lock:
            self.under_way -= 1
        if isinstance(said, str):
            said = 200, completion({"content": said})
        return (said[0], {}, said[1]) if len(said) == 2 else said


def handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            rows = [{"id": name, "object": "model"} for name in server.models]
            self._send(200, {}, json.dumps({"object": "list", "data": rows}).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self._send(*server.answer(body, self.headers.get("authorization")))

        def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
            try:
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                pass  # the client has given up

        def log_message(self, *_: Any) -> None: ...

    return Handler


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Starts endpoints: `serve(reply)`."""
    running: list[tuple[ThreadingHTTPServer, Server]] = []

    def start(reply: Callable[[dict[str, Any], int], Reply], **more: Any) -> Server:
        server = Server(reply, **more)
        made = ThreadingHTTPServer(("127.0.0.1", 0), handler(server))
        made.daemon_threads = True
        server.url = f"http://127.0.0.1:{made.server_address[1]}/v1"
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        running.append((made, server))
        return server

    yield start
    for made, server in running:
        server.released.set()
        made.shutdown()
        made.server_close()


def completion(message: dict[str, Any], finish: str = "stop", tokens: int | None = None) -> bytes:
    """A chat completion; `tokens` sampled, where it says so."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    usage = {} if tokens is None else {"usage": {"completion_tokens": tokens, "prompt_tokens": 9}}
    return json.dumps({"object": "chat.completion", "choices": [choice], **usage}).encode()
