"""The first process of a container: it keeps one worker, hands it requests, returns output, and ends everything.

Being the first process of its namespace it cannot be killed or stopped from inside, and it takes in the orphans. On
its stdin come requests as frames of `wire`; on its stdout go frames

    {"kind": "ready"}
    {"kind": "part"}    a piece of the worker's answer
    {"kind": "report"}  what a request left behind: `ended`, `oom`, and `sizes` of stdout and stderr, whose beginnings
                        are the payload: `taken` bytes of the one, the rest of the other

A request that is {"op": "stop"}, or the end of stdin, ends the container.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import socket
import sys
import time
from typing import Any, NoReturn

from agentgym.sandboxes.docker.inside import filter as second_filter
from agentgym.sandboxes.local.jail.wire import HEADER, Garbled, pack, parse, sizes
from agentgym.sandboxes.local.jail.worker import Worker

CHUNK = 1 << 16
ENOUGH = 1 << 20
"""Bytes held for a worker that does not read."""
BURY_SECONDS = 5.0
PR_SET_DUMPABLE = 4
OOM_COUNTS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")


def main() -> NoReturn:
    if os.getpid() != 1:  # it kills whatever it can reach
        sys.exit("the supervisor has to be the first process of a container")
    supervisor = Supervisor()
    try:
        supervisor.serve()
    except (OSError, Garbled) as e:
        print(f"the supervisor failed: {type(e).__name__}: {e}", file=sys.stderr)
        supervisor.bury()
    os._exit(1)


class Frames:
    """Cuts a stream into the frames' heads and the bytes after them, without holding payloads."""

    def __init__(self) -> None:
        self.held = bytearray()
        self.left = 0
        """Bytes of the frame under way that have not come."""

    def whole(self) -> dict[str, Any] | None:
        """A frame's message, once its head and JSON are there; `left` then counts what belongs to it from `held` on."""
        if len(self.held) < HEADER.size:
            return None
        text, payload = sizes(bytes(self.held[: HEADER.size]))
        if len(self.held) < HEADER.size + text:
            return None
        self.left = HEADER.size + text + payload
        return parse(bytes(self.held[HEADER.size : HEADER.size + text]))

    def take(self) -> bytes:
        """What is there of the frame under way."""
        part = bytes(self.held[: min(self.left, CHUNK)])
        del self.held[: len(part)]
        self.left -= len(part)
        return part


class Supervisor:
    def __init__(self) -> None:
        self._out = [os.memfd_create(name, os.MFD_CLOEXEC) for name in ("stdout", "stderr")]
        for fd in self._out:  # writers append, also those that outlive a call
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)
        self._wake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(
            signal.SIGINT, signal.SIG_DFL
        )  # which the first process is spared: only a handler would let it in
        self._oom_counts = _oom_file()
        self._oom_before = self._ooms()
        self._asked, self._answer = Frames(), Frames()
        self._to_worker = bytearray()
        self._output = 0
        self._busy = False
        self._undump(0)
        second_filter.install()
        self._worker = self._fork()

    def _fork(self) -> int:
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid:
            theirs.close()
            ours.setblocking(False)
            self._link = ours
            return pid
        code = 1
        try:
            self._become_worker(theirs.detach())
            code = 0
        finally:
            os._exit(code)

    def _become_worker(self, link: int) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.setsid()
        self._undump(1)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")  # memory that runs out ends the code, not who reports it
        os.nice(10)  # behind the supervisor: many busy processes are not to keep it from ending them
        kept = [os.open("/dev/null", os.O_RDONLY), *(os.dup(fd) for fd in self._out), os.dup(link)]
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in kept]
        for target, fd in enumerate(high):
            os.dup2(fd, target, inheritable=target != 3)
        os.closerange(4, min(os.sysconf("SC_OPEN_MAX"), 1 << 20))
        Worker(socket.socket(fileno=3), _end_others).run()

    def _undump(self, value: int) -> None:
        """0: its memory and descriptors are not for other processes of the same user."""
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, value, 0, 0, 0)

    def serve(self) -> None:
        self._send({"kind": "ready"})
        while True:
            poll = select.poll()
            poll.register(self._wake, select.POLLIN)
            poll.register(self._link, select.POLLIN | (select.POLLOUT if self._to_worker else 0))
            poll.register(0, select.POLLIN if len(self._to_worker) < ENOUGH else 0)  # its end is told in any case
            ready = dict(poll.poll())
            if self._link.fileno() in ready:
                self._exchange(ready[self._link.fileno()])
            if 0 in ready:
                self._listen()
            if self._wake in ready:
                os.read(self._wake, 4096)
                if self._reap():
                    self._end()

    def _listen(self) -> None:
        part = os.read(0, CHUNK)
        if not part:
            self.bury()
            os._exit(0)
        self._asked.held += part
        while self._asked.held:
            if not self._asked.left:
                message = self._asked.whole()
                if message is None:
                    return
                if message.get("op") == "stop":
                    self._end()
                self._begin(message)
            self._to_worker += self._asked.take()

    def _begin(self, message: dict[str, Any]) -> None:
        self._output = int(message["output"])
        self._answer = Frames()
        self._busy = True

    def _exchange(self, events: int) -> None:
        try:
            if events & select.POLLOUT:
                del self._to_worker[: self._link.send(self._to_worker)]
            if events & ~select.POLLOUT:
                part = self._link.recv(CHUNK)
                if not part:
                    self._end()
                self._answer.held += part
                self._relay()
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):  # the worker closed its stream
            self._end()

    def _relay(self) -> None:
        if not self._busy:
            self._answer = Frames()  # forged: nobody asked
            return
        while self._answer.held:
            if not self._answer.left and self._answer.whole() is None:
                return
            self._send({"kind": "part"}, self._answer.take())
            if not self._answer.left:
                self._report(ended=False)
                return

    def _report(self, ended: bool) -> None:
        self._busy = False
        ooms = self._ooms()
        # from the file, whose size may be a lie of holes: no more than is shown
        out, err = (os.pread(fd, self._output + 1, 0) for fd in self._out)
        message = {
            "kind": "report",
            "ended": ended,
            "oom": ooms > self._oom_before,
            "sizes": [os.fstat(fd).st_size for fd in self._out],
            "taken": len(out),
        }
        self._oom_before = ooms
        self._send(message, out + err)

    def _end(self) -> NoReturn:
        self.bury()
        self._report(ended=True)
        os._exit(0)

    def bury(self) -> None:
        """Kill all that runs here and wait until it is gone."""
        deadline = time.monotonic() + BURY_SECONDS
        while time.monotonic() < deadline:
            try:
                os.kill(-1, signal.SIGKILL)
            except OSError:
                return
            self._reap()
            time.sleep(0.0005)

    def _reap(self) -> bool:
        """Whether the worker is among those that ended."""
        found = False
        with contextlib.suppress(ChildProcessError):
            while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                found = found or pid == self._worker
        return found

    def _ooms(self) -> int:
        """How often the kernel ended a process here for its memory; 0 where it does not say."""
        if self._oom_counts is None:
            return 0
        words = os.pread(self._oom_counts, 4096, 0).split()
        return int(dict(zip(words[::2], words[1::2])).get(b"oom_kill", 0))  # noqa: B905 (Python 3.8 has no strict)

    def _send(self, message: dict[str, Any], payload: bytes = b"") -> None:
        left = memoryview(pack(message, payload))
        while left:
            left = left[os.write(1, left) :]


def _oom_file() -> int | None:
    for path in OOM_COUNTS:
        with contextlib.suppress(OSError):
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return None


def _end_others() -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)  # all of the container but the worker and its init
