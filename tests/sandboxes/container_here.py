"""A container's first process in a thread of the tests' own process.

All that would touch that process is put aside: it kills nobody, ends by an exception, and its descriptors 0 and 1 are
a socket's.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from agentgym.sandboxes.docker.inside import supervisor as module
from agentgym.sandboxes.docker.inside.supervisor import Supervisor
from agentgym.sandboxes.local.jail.worker import Worker

PACKET = struct.Struct(">BxxxI")
poll = select.poll


class Left(BaseException):
    """In place of the end of the process."""


class Container:
    """The supervisor in a thread: `host` is the stream as the engine hands it out, `worker` the worker's end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.host, theirs = socket.socketpair()
        self._asked, self._told = theirs, socket.socketpair()
        self.kills: list[tuple[int, int]] = []
        self.oom = os.memfd_create("oom")
        self.count_ooms(0)
        self.left: Future[int] = Future()
        self._forked = threading.Event()
        monkeypatch.setattr(module, "os", self)
        monkeypatch.setattr(module.select, "poll", lambda: Poll(theirs.fileno(), poll()))
        for name in ("set_wakeup_fd", "signal"):
            monkeypatch.setattr(signal, name, lambda *_, **__: None)
        monkeypatch.setattr(module.second_filter, "install", lambda: None)
        monkeypatch.setattr(module, "_oom_file", lambda: self.oom)
        monkeypatch.setattr(Supervisor, "_undump", lambda *_: None)
        monkeypatch.setattr(Supervisor, "_fork", lambda supervisor: self._fork(supervisor))
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._serve, self._wrap)]
        for thread in self._threads:
            thread.start()
        assert self._forked.wait(5)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _fork(self, supervisor: Supervisor) -> int:
        ours, self.worker = socket.socketpair()
        ours.setblocking(False)
        supervisor._link = ours
        self.supervisor = supervisor
        self._forked.set()
        return 7

    # what the supervisor finds in the place of `os`

    def getpid(self) -> int:
        return 1

    def read(self, fd: int, size: int) -> bytes:
        return self._asked.recv(size) if fd == 0 else os.read(fd, size)

    def write(self, fd: int, data: bytes) -> int:
        assert fd == 1
        return self._told[0].send(data)

    def kill(self, pid: int, number: int) -> None:
        self.kills.append((pid, number))
        if len(self.kills) > 1:
            raise ProcessLookupError

    def waitpid(self, pid: int, flags: int) -> tuple[int, int]:
        raise ChildProcessError

    def _exit(self, code: int) -> None:
        self.left.set_result(code)
        raise Left

    # the container

    def _serve(self) -> None:
        with contextlib.suppress(Left):
            module.main()
        for end in (self.supervisor._link, self._told[0]):
            end.close()

    def _wrap(self) -> None:
        """As the engine does with what the first process writes."""
        with contextlib.suppress(OSError):  # the host is gone
            while part := self._told[1].recv(999):
                self._asked.sendall(PACKET.pack(1, len(part)) + part)
            self._asked.shutdown(socket.SHUT_WR)

    def work(self, streams: Any) -> None:
        """Have a real worker answer."""

        def run() -> None:
            select.select([self.worker], [], [])  # a worker makes `streams` the process's, and pytest does the like
            with contextlib.suppress(OSError):  # the supervisor has hung up
                Worker(self.worker, lambda: None, streams).run()

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def count_ooms(self, count: int) -> None:
        os.pwrite(self.oom, b"low 0\noom_kill %d\n" % count, 0)

    def print(self, text: str, stream: int = 0) -> None:
        os.write(self.supervisor._out[stream], text.encode())

    def close(self) -> None:
        for end in (self.host, self.worker):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()


class Poll:
    """A poll in which 0 is the supervisor's stdin."""

    def __init__(self, stdin: int, inner: Any):
        self._stdin, self._inner = stdin, inner

    def register(self, of: Any, events: int) -> None:
        self._inner.register(self._stdin if of == 0 else of, events)

    def poll(self) -> list[tuple[int, int]]:
        return [(0 if fd == self._stdin else fd, events) for fd, events in self._inner.poll()]
