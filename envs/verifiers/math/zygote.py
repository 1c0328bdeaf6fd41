"""The process that has sympy loaded and forks the workers: a fork costs milliseconds, an import of sympy a second.

It runs as a process of its own and knows nothing of the caller's program. Control messages are JSON lines, both ways:
`{"fork": n}` is answered with `{"pid": p}` and the worker's socket; `{"kill": p}` ends a worker;
`{"ended": p, "signal": s}` tells of one that ended. A worker reads a job a line, `[gold, prose, answer, prose]`, and
answers with the line `gold` once it has read the gold, and with a line with the outcome's name. It is killed by the
kernel when its processor time for the job is spent (SIGPROF), which no computation can hold up, and it ends with the
host: by the end of its socket and by the parent-death signal.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import logging
import os
import resource
import select
import signal
import socket
from collections.abc import Sequence

JOB_SECONDS = 0.8
"""Processor time of one job. The slowest right answers of the recorded cases take 0.5 s, most take 0.02 s."""
GOLD_SECONDS = 3.0
"""Processor time of reading the gold, before: it is data that somebody trusts."""
MEMORY = 512 << 20
"""Bytes of address space that a worker may add to what it was born with."""
JOBS = 2_000
"""After so many a worker is replaced, for sympy's caches only grow."""
_PR_SET_PDEATHSIG = 1
_WARM = (
    ("\\frac{1}{2}+\\sqrt{2}", "\\sqrt{2}+0.5"),
    ("x^2+2x+1", "(x+1)^2"),
    ("(1, \\infty)", "x > 1"),
    ("\\{1,2\\}", "1, 2"),
    (
        "\\begin{pmatrix} -\\frac{1}{2} & 2 \\\\ \\sqrt[3]{x}^2 & 4 \\end{pmatrix}",
        "\\begin{bmatrix} 1 & 2x^{2/3} \\end{bmatrix}",
    ),
    ("2\\sin(x)\\cos(x)", "\\sin(2x)"),
    ("y = 2x + 3", "2x - y + 3 = 0"),
    ("F_n = \\sum_{k=0}^{n-1} F_k F_{n-k-1}", "\\sum_{k=0}^{n} k^2"),
    ("e^{i\\pi} = -1", "\\left(3, \\frac{\\pi}{2}\\right)"),
    ("[0,1) \\cup (2,\\infty)", "x \\in [0,1] \\cup \\{3\\}"),
    ("\\log_2 8", "\\ln 3"),
    ("|x| \\le 2", "-2 \\le x \\le 2"),
)
_WARM_PROSE = (
    "Let $x^2 = 4$ or $x = \\frac{1}{2}$, \\(y = 3\\), \\[z = 4.\\] There are 12, (2, 3) or $1,000. So $x = 7$ is it."
)


def main(control_fd: int, parent: int) -> None:
    """Serve until the host is gone."""
    logging.disable(logging.CRITICAL)
    _die_with_parent(parent)
    control = socket.socket(fileno=control_fd)
    from agentgym.envs.verifiers.math.compare import compare

    for gold, answer in _WARM:  # the parser learns its grammar as it reads; workers inherit what it has learnt
        compare(gold, False, answer, False)
    compare("7", False, _WARM_PROSE, True)
    gc.freeze()  # workers share these pages as long as no collector writes to them
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    buffer = b""
    while True:
        ready, _, _ = select.select([control_fd, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _reap(control)
        if control_fd in ready:
            try:
                received = control.recv(65536)
            except ConnectionResetError:  # the host ended before it had read all that it was sent
                received = b""
            if not received:
                os._exit(0)
            *lines, buffer = (buffer + received).split(b"\n")
            for line in lines:
                _serve(control, json.loads(line), (control_fd, woken, waker))


def _serve(control: socket.socket, asked: dict[str, int], inherited: Sequence[int]) -> None:
    if "kill" in asked:
        with contextlib.suppress(ProcessLookupError):  # not yet reaped, so the number is still its own
            os.kill(asked["kill"], signal.SIGKILL)
        return
    ours, theirs = socket.socketpair()
    zygote = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for fd in inherited:
                os.close(fd)
            _die_with_parent(zygote)
            work(theirs)
        finally:
            os._exit(1)
    theirs.close()
    socket.send_fds(control, [json.dumps({"pid": pid}).encode() + b"\n"], [ours.fileno()])
    ours.close()


def _reap(control: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        signum = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        control.sendall(json.dumps({"ended": pid, "signal": signum}).encode() + b"\n")


def work(jobs: socket.socket) -> None:
    """Answer jobs until there are no more, or `JOBS` are done."""
    from agentgym.envs.verifiers.math.compare import compare, gold_readable

    born_with = _size()
    resource.setrlimit(resource.RLIMIT_AS, (born_with + MEMORY, born_with + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    stream = jobs.makefile("rwb")
    for _ in range(JOBS):
        line = stream.readline()
        if not line:
            os._exit(0)
        gold, gold_prose, answer, answer_prose = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, GOLD_SECONDS)
        try:
            # the gold comes first and is told of, so that what happens after is the answer's doing
            if not gold_readable(gold, gold_prose):
                outcome = "error"
            else:
                stream.write(b"gold\n")
                stream.flush()
                signal.setitimer(signal.ITIMER_PROF, JOB_SECONDS)
                outcome = compare(gold, gold_prose, answer, answer_prose) if answer is not None else "correct"
        except (MemoryError, RecursionError):
            outcome = "timeout"
        except Exception:
            outcome = "unparsable"
        signal.setitimer(signal.ITIMER_PROF, 0)
        stream.write(outcome.encode() + b"\n")
        stream.flush()
    os._exit(0)


def _size() -> int:
    """Bytes of address space of this process; a guess where there is no /proc."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 1 << 30


def _die_with_parent(parent: int) -> None:
    """On Linux the kernel sees to it; elsewhere the end of the socket does."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
