"""A session's inner loop: run code in one namespace that lives on, run commands, read and write files.

The code shares this process, so it may forge any reply: nothing here is believed about anything but the session itself.
"""

from __future__ import annotations

import ast
import contextlib
import linecache
import os
import shlex
import socket
import subprocess
import sys
import time
import traceback
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from .wire import pack, receive

RESULT_CHARS = 20_000
_FILE = "<code {}>"


class Worker:
    """Answers frames until the stream ends. `end_others` ends whatever else the session runs."""

    def __init__(self, connection: socket.socket, end_others: Callable[[], None], streams: Sequence[TextIO] = ()):
        self._connection = connection
        self._end_others = end_others
        self._folder = os.environ.pop("AGENTGYM_FOLDER", "")
        self._count = 0
        self._terminal: Terminal | None = None
        self._begin()
        self._pid = os.getpid()
        sys.stdin, sys.stdout, sys.stderr = streams or standard_streams()

    def _begin(self) -> None:
        self._main = types.ModuleType("__main__")
        sys.modules["__main__"] = self._main

    def run(self) -> None:
        while (frame := receive(self._connection)) is not None:
            message, payload = frame
            began = time.perf_counter()
            try:
                reply, out = getattr(self, f"do_{message['op']}")(message, payload)
            except OSError as e:
                reply, out = {"status": "error", "error": f"{type(e).__name__}: {e}"}, b""
            except MemoryError:
                reply, out = {"status": "oom", "error": "MemoryError"}, b""
            if os.getpid() != self._pid:
                os._exit(0)  # a child that the code forked and did not end: one process answers
            reply["duration"] = time.perf_counter() - began
            self._connection.sendall(pack(reply, out))

    def do_exec(self, message: Mapping[str, Any], code: bytes) -> tuple[dict[str, Any], bytes]:
        _empty()
        self._count += 1
        file = _FILE.format(self._count)
        reply: dict[str, Any] = {"status": "ok"}
        try:
            value = self._evaluate(code.decode(), file)
            if value is not None:
                self._main.__dict__["_"] = value
                reply["result"] = repr(value)[:RESULT_CHARS]
        except SystemExit as e:
            if e.code not in (None, 0):
                reply = {"status": "error", "error": f"SystemExit: {str(e.code)[:RESULT_CHARS]}"}
        except BaseException as e:
            reply = _failed(e)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # the code may have closed or replaced it
                stream.flush()
        return reply, b""

    def _evaluate(self, code: str, file: str) -> Any:
        """Run the statements; the value of the last one where it is an expression."""
        linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)
        if (alone := _expression(code, file)) is not None:
            return eval(alone, self._main.__dict__)
        tree = ast.parse(code, file)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        scope = self._main.__dict__
        if tree.body:
            exec(compile(tree, file, "exec"), scope)
        return eval(compile(ast.Expression(last.value), file, "eval"), scope) if isinstance(last, ast.Expr) else None

    def do_shell(self, message: Mapping[str, Any], command: bytes) -> tuple[dict[str, Any], bytes]:
        _empty()
        done = subprocess.run(["/bin/sh", "-c", command], stdin=subprocess.DEVNULL)
        code = done.returncode
        return {"status": "error" if code else "ok", "exit_code": code}, b""

    def do_terminal(self, message: Mapping[str, Any], command: bytes) -> tuple[dict[str, Any], bytes]:
        _empty()
        if self._terminal is None:
            self._terminal = Terminal()
        code, ended = self._terminal.run(command)
        if ended:
            self._terminal = None
        error = {"error": "the terminal ended; the next command gets a new one"} if ended else {}
        return {"status": "error" if code or ended else "ok", "exit_code": code, **error}, b""

    def do_afresh(self, message: Mapping[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        self._end_others()
        self._terminal = None
        self._begin()
        return {"status": "ok"}, b""

    def do_workdir(self, message: Mapping[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        os.makedirs(self._place(message["path"]), exist_ok=True)
        os.chdir(self._place(message["path"]))
        return {"status": "ok"}, b""

    def do_write(self, message: Mapping[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        path = os.path.abspath(self._place(message["path"]))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
        return {"status": "ok"}, b""

    def do_read(self, message: Mapping[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        with open(self._place(message["path"]), "rb") as file:
            data = bytearray()  # in pieces: a read of so much would ask for so much memory first
            while part := file.read(min(1 << 20, message["max_bytes"] + 1 - len(data))):
                data += part
        return {"status": "ok"}, bytes(data)

    def _place(self, path: str) -> str:
        """/work and /tmp are the session's own, wherever they are."""
        if self._folder and f"{path}/".startswith(("/work/", "/tmp/")) and not path.startswith(f"{self._folder}/"):
            return self._folder + path
        return path


class Terminal:
    """A shell that lives on. It says by a pipe of its own, as descriptor 9, how each command ended."""

    def __init__(self) -> None:
        shell = "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh"
        self._ended, theirs = os.pipe()
        self._process = subprocess.Popen(
            [shell],
            stdin=subprocess.PIPE,
            close_fds=False,  # only what is marked for it is inherited; 9 is made below
            preexec_fn=lambda: os.dup2(theirs, 9),
        )
        os.close(theirs)

    def run(self, command: bytes) -> tuple[int | None, bool]:
        """(exit code, whether the shell itself ended)."""
        assert self._process.stdin is not None
        quoted = shlex.quote(command.decode(errors="surrogateescape"))
        # `command` keeps a syntax error from ending the shell
        line = f"command eval {quoted} </dev/null 9>&-; echo $? >&9\n"
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line.encode(errors="surrogateescape"))
            self._process.stdin.flush()
        told = b""
        while not told.endswith(b"\n"):
            part = os.read(self._ended, 64)
            if not part:
                os.close(self._ended)
                return self._process.wait(), True
            told += part
        return int(told), False


def _expression(code: str, file: str) -> types.CodeType | None:
    """Code that is one expression, as much is: compiled at once, without a tree."""
    try:
        return compile(code, file, "eval")
    except (SyntaxError, ValueError):
        return None


def standard_streams() -> Sequence[TextIO]:
    """stdin, stdout and stderr of whatever descriptors 0, 1 and 2 are when they are used."""
    return open(0, closefd=False), *(
        open(fd, "w", encoding="utf-8", errors="backslashreplace", closefd=False) for fd in (1, 2)
    )


def _empty() -> None:
    for fd in (1, 2):
        with contextlib.suppress(OSError):
            os.ftruncate(fd, 0)


def _failed(error: BaseException) -> dict[str, Any]:
    """What went wrong, with the traceback of the code's own lines on stderr."""
    status = "oom" if isinstance(error, MemoryError) else "error"
    try:
        told = traceback.TracebackException.from_exception(error, limit=-20)
        told.stack = traceback.StackSummary.from_list([f for f in told.stack if f.filename.startswith("<code ")])
        sys.stderr.write("".join(told.format()))
        message = f"{type(error).__name__}: {error}"
    except BaseException:  # an exception whose own text raises, or no memory to write it
        message = type(error).__name__
    return {"status": status, "error": message[:RESULT_CHARS]}
