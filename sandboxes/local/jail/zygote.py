"""The zygote: a bare interpreter behind the outer walls that forks a session for each request.

A request is one datagram of JSON limits with three file descriptors: the session's stream and where its output goes.
The answer is {"pid"} with a pidfd of the session's init. The zygote reads nothing else and runs nobody's code.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import keeper, tiers
from . import namespaces as walls
from .syscalls import call, prctl
from .wire import pack
from .worker import Worker, standard_streams

CONTROL = 3
"""The descriptor of a session's stream, in the session."""
READY = pack({"ready": True})
STREAMS = standard_streams()
"""Made once, before there are sessions: they are of the descriptors' numbers."""


def main() -> None:
    config = json.loads(sys.argv[1])
    host = socket.socket(fileno=config["fd"])
    try:
        tier = tiers.make(config["tier"], config["binds"], config["path"])
        tier.build()
        sys.path[:] = [*(path for path in sys.path if path not in config["forget"]), *tier.packages]
        for name in config["preload"]:  # behind the walls already, and from where sessions will find the rest of them
            importlib.import_module(name)
    except Exception as e:
        host.send(json.dumps({"error": f"{type(e).__name__}: {e}"}).encode())
        return
    os.environ.update(HOME=walls.WORK, PATH=config["env_path"], LANG="C.UTF-8", TMPDIR="/tmp", USER="agent")
    gc.collect()
    gc.freeze()
    host.send(json.dumps({"ready": os.getpid()}).encode())
    serve(host, tier, config["parting"])


def serve(host: socket.socket, tier: tiers.Tier, parting: int) -> None:
    """Fork on request and reap, until the host's end closes. `parting`: the signal that ends a session."""
    inits: set[int] = set()
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    poll = select.poll()
    poll.register(host, select.POLLIN)
    poll.register(wake_read, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_read, 4096)
            _reap(inits)
        if host.fileno() in ready:
            data, fds, _, _ = socket.recv_fds(host, 65536, 3)
            if not data:
                return
            pid = _answer(host, {**json.loads(data), "parting": parting}, fds, tier)
            inits |= {pid} - {-1}


def _reap(inits: set[int]) -> None:
    """Bury whoever ended; what is adopted is of an init that was killed, and is ended too."""
    while True:
        inits.difference_update(keeper.reaped())
        if not _adopted(inits):
            return
        keeper.strike(lambda: [pid for top in _adopted(inits) for pid in (top, *keeper.descendants(top))])


def _adopted(inits: set[int]) -> list[int]:
    return [pid for pid in keeper.children(os.getpid()) if pid not in inits]


def _answer(host: socket.socket, limits: Mapping[str, Any], fds: Sequence[int], tier: tiers.Tier) -> int:
    try:
        pid = _clone(tier.flags)
    except OSError as e:
        host.send(json.dumps({"error": str(e)}).encode())
        pid = -1
    if pid == 0:
        _session(limits, fds, tier)
    for fd in fds:
        os.close(fd)
    if pid > 0:
        pidfd = os.pidfd_open(pid)
        socket.send_fds(host, [json.dumps({"pid": pid}).encode()], [pidfd])
        os.close(pidfd)
    return pid


def _clone(flags: int) -> int:
    """fork into new namespaces; what CPython does around a fork is done around it."""
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = -1
    try:
        pid = call("clone", flags | signal.SIGCHLD, 0, 0, 0, 0)
    finally:
        (ctypes.pythonapi.PyOS_AfterFork_Child if pid == 0 else ctypes.pythonapi.PyOS_AfterFork_Parent)()
    return pid


def _session(limits: Mapping[str, Any], fds: Sequence[int], tier: tiers.Tier) -> None:
    """The child: a session's init. Never returns."""
    code = 70
    try:
        prctl(walls.PR_SET_PDEATHSIG, limits["parting"])
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        stream = _own_descriptors(fds)
        connection = socket.socket(fileno=stream)
        with _told(connection):
            os.setsid()
            tier.enter(limits)
            if not connection.recv(1):  # the host says go once the session is where its memory is counted
                if limits["folder"]:
                    keeper.remove(limits["folder"])
                os._exit(0)
            tier.seal_init()
        prctl(walls.PR_SET_DUMPABLE, 0)  # init's memory is not the session's to read
        worker = os.fork()
        if worker == 0:
            with _told(connection):
                tier.seal_worker(limits)
            prctl(walls.PR_SET_DUMPABLE, 1)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            connection.sendall(READY)
            Worker(connection, tier.end_others, STREAMS).run()
            os._exit(0)
        connection.close()
        code = tier.wait(worker, limits)
    finally:
        os._exit(code)


@contextlib.contextmanager
def _told(connection: socket.socket) -> Iterator[None]:
    """Whatever fails is told to the host, and ends the process."""
    try:
        yield
    except Exception as e:
        connection.sendall(pack({"failed": f"{type(e).__name__}: {e}"}))
        os._exit(71)


def _own_descriptors(fds: Sequence[int]) -> int:
    """stdin from nowhere, output where the host looks, the stream at CONTROL, nothing else of the zygote's."""
    kept = [os.open("/dev/null", os.O_RDONLY), *(os.dup(fd) for fd in (fds[1], fds[2], fds[0]))]
    high = [os.dup2(fd, 200 + i) for i, fd in enumerate(kept)]
    for target, fd in enumerate(high):
        os.dup2(fd, target, inheritable=target != CONTROL)
    os.closerange(CONTROL + 1, 1 << 20)
    return CONTROL
