"""A server on loopback that speaks E2B's wire protocol and really runs what it is sent.

One port serves what E2B has three services for: the API (sandboxes), envd (files, processes; Connect with JSON) and
the code interpreter (contexts, /execute). A sandbox is a folder, a Python process a context, and whatever these start;
all carry the sandbox's id in their environment, so that its end finds them. There is no isolation: it runs tests' code.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from agentgym.sandboxes.local.jail import wire

KEY = "e2b_0000"
MARK = "E2B_TEST_SANDBOX"
JAIL = str(Path(wire.__file__).parents[1])
KERNEL = (
    "import sys, socket; sys.path.insert(0, sys.argv[2]); from jail.worker import Worker; sys.path.pop(0); "
    "Worker(socket.socket(fileno=int(sys.argv[1])), lambda: None).run()"
)
Answer = tuple[int, bytes, dict[str, str]]


class Context:
    """An interpreter; one that died is started again, as Jupyter does."""

    def __init__(self, machine: Machine, cwd: str):
        self.id = uuid.uuid4().hex
        self.cwd = cwd
        self.count = 0
        self.busy = threading.Lock()
        self._machine = machine
        self._files = [open(tempfile.mkstemp(dir=machine.away)[1], "a+b") for _ in range(2)]  # noqa: SIM115
        self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", KERNEL, str(theirs.fileno()), JAIL],
                cwd=self.cwd,
                env=self._machine.environment(),
                stdin=subprocess.DEVNULL,
                stdout=self._files[0],
                stderr=self._files[1],
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._stream = ours

    def execute(self, code: str) -> Iterator[dict[str, Any]]:
        with self.busy:
            self.count += 1
            yield {"type": "number_of_executions", "execution_count": self.count}
            for file in self._files:
                file.truncate(0)
            seen = [0, 0]
            answer: list[tuple[dict[str, Any], bytes] | None] = []
            asking = threading.Thread(target=self._ask, args=(code, answer), daemon=True)
            asking.start()
            while asking.is_alive():
                asking.join(0.02)
                yield from self._written(seen)
            yield from self._written(seen)
            yield from self._ended(answer)

    def _ask(self, code: str, answer: list[Any]) -> None:
        with contextlib.suppress(OSError):
            self._stream.sendall(wire.pack({"op": "exec"}, code.encode()))
            answer.append(wire.receive(self._stream))

    def _written(self, seen: list[int]) -> Iterator[dict[str, Any]]:
        for i, name in enumerate(("stdout", "stderr")):
            if self._machine.gone:
                raise ConnectionAbortedError
            data = os.pread(self._files[i].fileno(), 1 << 22, seen[i])
            seen[i] += len(data)
            if data:
                yield {"type": name, "text": data.decode(errors="replace"), "timestamp": time.time_ns()}

    def _ended(self, answer: list[Any]) -> Iterator[dict[str, Any]]:
        if self._machine.gone:
            raise ConnectionAbortedError
        if not answer or answer[0] is None:
            yield {"type": "error", "name": "ContextRestarting", "value": "Context was restarted", "traceback": ""}
            self._process.wait()
            self._start()
            return
        reply, _ = answer[0]
        if reply["status"] != "ok":
            name, _, value = reply["error"].partition(": ")
            yield {"type": "error", "name": name, "value": value, "traceback": "\x1b[0;31m---\x1b[0m\n"}
        elif "result" in reply:
            yield {"type": "result", "text": reply["result"], "is_main_result": True}

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._stream.close()
        for file in self._files:
            file.close()


class Machine:
    """A sandbox: a home folder, contexts and commands."""

    def __init__(self, body: dict[str, Any]):
        self.id = uuid.uuid4().hex[:20]
        self.body = body
        self.away = tempfile.mkdtemp(prefix="e2b-test-")
        self.home = f"{self.away}/home"
        os.mkdir(self.home)
        self.ends = time.time() + body.get("timeout", 300)
        self.commands: dict[int, subprocess.Popen[bytes]] = {}
        self.gone = False
        first = Context(self, self.home)
        self.contexts = {first.id: first}
        self.default = first

    def environment(self) -> dict[str, str]:
        return {"HOME": self.home, "PATH": os.environ["PATH"], "LANG": "C.UTF-8", MARK: self.id}

    def context(self, name: str | None) -> Context:
        return self.contexts[name] if name else self.default

    def path(self, path: str) -> str:
        return os.path.join(self.home, path)

    def end(self) -> None:
        self.gone = True
        while left := processes(self.id):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for context in self.contexts.values():
                context.end()
            for command in self.commands.values():
                command.wait()
            time.sleep(0.005)
        shutil.rmtree(self.away, ignore_errors=True)


def processes(machine: str) -> list[int]:
    """Those that run in a sandbox."""
    found, word = [], f"{MARK}={machine}".encode()
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError):
            if word in Path(f"/proc/{int(entry)}/environ").read_bytes().split(b"\0"):
                state = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[0]
                found += [int(entry)] if state not in "ZX" else []
    return found


class Server(ThreadingHTTPServer):
    """`answers`: what to say instead, by the beginning of a path, until it is taken out."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.machines: dict[str, Machine] = {}
        self.answers: dict[str, Answer | Callable[[], None]] = {}
        self.asked: list[str] = []
        self.most = 0
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def end(self, machine: str) -> bool:
        found = self.machines.pop(machine, None)
        if found is not None:
            found.end()
        return found is not None

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        for machine in list(self.machines):
            self.end(machine)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_DELETE = do_GET  # noqa: N815

    def _serve(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        self.query = dict(urllib.parse.parse_qsl(url.query))
        body = self._body()
        self.server.asked.append(f"{self.command} {url.path}")
        for start, instead in list(self.server.answers.items()):
            if url.path.startswith(start):
                if callable(instead):
                    instead()
                else:
                    return self._send(*instead)
        if "E2b-Sandbox-Id" in self.headers:
            machine = self.server.machines.get(self.headers["E2b-Sandbox-Id"])
            if machine is None:
                return self._json(502, {"code": 502, "message": "The sandbox was not found"})
            return self._in_machine(machine, url.path, body)
        if self.headers.get("X-API-Key") != KEY:
            return self._json(401, {"code": 401, "message": "Invalid API key"})
        return self._api(url.path, body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = bytearray()
        while size := int(self.rfile.readline(), 16):
            parts += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return bytes(parts)

    def _api(self, path: str, body: bytes) -> None:
        parts = path.strip("/").split("/")
        if path == "/v2/sandboxes" and self.command == "POST":
            asked = json.loads(body)
            if asked["templateID"] == "none":
                return self._json(404, {"code": 404, "message": "template 'none' not found"})
            machine = Machine(asked)
            self.server.machines[machine.id] = machine
            self.server.most = max(self.server.most, len(self.server.machines))
            return self._json(201, self._described(machine))
        if path == "/v2/sandboxes":
            wanted = dict(urllib.parse.parse_qsl(self.query.get("metadata", "")))
            known = [m for m in self.server.machines.values() if m.body["metadata"].items() >= wanted.items()]
            return self._json(200, [self._described(m) for m in known])
        if self.command == "DELETE" and self.server.end(parts[1]):
            return self._send(204, b"")
        if parts[-1] == "timeout" and parts[1] in self.server.machines:
            self.server.machines[parts[1]].ends = time.time() + json.loads(body)["timeout"]
            return self._send(204, b"")
        return self._json(404, {"code": 404, "message": f"{path}: not found"})

    @staticmethod
    def _described(machine: Machine) -> dict[str, Any]:
        listed = {"startedAt": "2026-01-01T00:00:00Z", "endAt": "2026-01-01T01:00:00Z", "state": "running"}
        size = {"cpuCount": 2, "memoryMB": 512, "diskSizeMB": 1024, "metadata": machine.body["metadata"]}
        names = {"templateID": machine.body["templateID"], "sandboxID": machine.id, "clientID": "c"}
        return {**names, **listed, **size, "envdVersion": "0.2.10", "envdAccessToken": "token"}

    def _in_machine(self, machine: Machine, path: str, body: bytes) -> None:
        if path == "/health":
            return self._send(204, b"")
        if path == "/files":
            return self._files(machine, body)
        if path.startswith("/process.Process/"):
            return getattr(self, f"_{path.rpartition('/')[2].lower()}")(machine, body)
        if path == "/execute":
            asked = json.loads(body)
            return self._stream(
                json.dumps(line).encode() + b"\n"
                for line in machine.context(asked.get("context_id")).execute(asked["code"])
            )
        if path == "/contexts":
            context = Context(machine, machine.path(json.loads(body).get("cwd") or ""))
            machine.contexts[context.id] = context
            return self._json(200, {"id": context.id, "language": "python", "cwd": context.cwd})
        if self.command == "DELETE":
            machine.contexts.pop(path.rpartition("/")[2]).end()
            return self._json(200, None)
        return self._json(404, {"code": 404, "message": f"{path}: not found"})

    def _files(self, machine: Machine, body: bytes) -> None:
        where = machine.path(self.query["path"])
        try:
            if self.command == "GET":
                return self._send(200, Path(where).read_bytes())
            if not where.startswith("/tmp/"):  # what E2B's ordinary user may write; this server may be root
                raise PermissionError(13, "Permission denied")
            os.makedirs(os.path.dirname(where), exist_ok=True)
            Path(where).write_bytes(_part(self.headers["Content-Type"], body))
            return self._json(200, [{"name": os.path.basename(where), "type": "file", "path": where}])
        except FileNotFoundError:
            return self._json(404, {"code": 404, "message": f"path '{where}' does not exist"})
        except IsADirectoryError:
            return self._json(400, {"code": 400, "message": f"path '{where}' is a directory"})
        except OSError as e:
            return self._json(500, {"code": 500, "message": f"error opening file: {(e.strerror or '').lower()}"})

    def _start(self, machine: Machine, body: bytes) -> None:
        asked = json.loads(body[5:])
        config = asked["process"]
        command = subprocess.Popen(
            [config["cmd"], *config.get("args", ())],
            cwd=machine.path(config.get("cwd", "")),
            env=machine.environment() | config.get("envs", {}),
            stdin=subprocess.PIPE if asked.get("stdin") else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        machine.commands[command.pid] = command
        self._stream(map(_frame, self._events(machine, command)), "application/connect+json")

    def _events(self, machine: Machine, command: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
        yield {"event": {"start": {"pid": command.pid}}}
        assert command.stdout is not None
        assert command.stderr is not None
        pipes = {"stdout": command.stdout.fileno(), "stderr": command.stderr.fileno()}
        for fd in pipes.values():
            os.set_blocking(fd, False)
        code = None
        while code is None:
            code = command.poll()
            moved = code is not None
            for name, fd in pipes.items():
                with contextlib.suppress(BlockingIOError):
                    while data := os.read(fd, 1 << 16):
                        moved = True
                        yield {"event": {"data": {name: base64.b64encode(data).decode()}}}
            if not moved:
                time.sleep(0.003)
        if machine.gone:
            raise ConnectionAbortedError
        yield {"event": {"end": {"exitCode": code, "exited": code >= 0, "status": f"exit status {code}"}}}

    def _sendinput(self, machine: Machine, body: bytes) -> None:
        asked = json.loads(body)
        command = machine.commands[asked["process"]["pid"]]
        assert command.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            command.stdin.write(base64.b64decode(asked["input"]["stdin"]))
            command.stdin.flush()
        self._json(200, {})

    def _json(self, status: int, body: Any) -> None:
        self._send(status, json.dumps(body).encode())

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, pieces: Iterator[bytes], kind: str = "application/json") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in pieces:
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            self.wfile.flush()
        if kind.startswith("application/connect"):
            end = struct.pack(">BI", 2, 2) + b"{}"
            self.wfile.write(f"{len(end):x}\r\n".encode() + end + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")


def _frame(event: dict[str, Any]) -> bytes:
    text = json.dumps(event).encode()
    return struct.pack(">BI", 0, len(text)) + text


def _part(kind: str, body: bytes) -> bytes:
    """The content of a form's one file."""
    boundary = kind.partition("boundary=")[2].strip('"').encode()
    content = body.split(b"\r\n\r\n", 1)[1]
    return content[: content.rindex(b"\r\n--" + boundary)]
