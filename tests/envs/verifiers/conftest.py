"""A judge on loopback that speaks the protocol and answers as a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Reply = str | tuple[int, bytes]


@dataclass
class JudgeServer:
    """`reply(body, number)` answers the number-th request (from 0): the judge's words, or (status, body)."""

    reply: Callable[[dict[str, Any], int], Reply]
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    url: str = ""
    released: threading.Event = field(default_factory=threading.Event)
    """Set at the end: hanging replies wait for it."""
    under_way: int = 0
    most: int = 0
    """Requests at once, at most."""


@pytest.fixture
def serve() -> Iterator[Callable[..., JudgeServer]]:
    running: list[tuple[ThreadingHTTPServer, JudgeServer]] = []

    def start(reply: Callable[[dict[str, Any], int], Reply]) -> JudgeServer:
        server = JudgeServer(reply)
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with lock:
                    number = len(server.bodies)
                    server.bodies.append(body)
                    server.keys.append(self.headers.get("authorization"))
                    server.under_way += 1
                    server.most = max(server.most, server.under_way)
                said = server.reply(body, number)
                with lock:
                    server.under_way -= 1
                status, content = said if isinstance(said, tuple) else (200, completion(said))
                try:
                    self.send_response(status)
                    self.send_header("content-length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:
                    pass  # the client has given up

            def log_message(self, *_: Any) -> None: ...

        made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
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


def completion(text: str, finish: str = "stop") -> bytes:
    """A chat completion that says `text`."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return json.dumps({"object": "chat.completion", "choices": [choice]}).encode()
