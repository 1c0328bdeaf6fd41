"""The proof that the walls stand: one real session tries what it must not be able to do, before anybody's code runs."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from agentgym.errors import SandboxUnavailable
from agentgym.execution import Capabilities, ExecResult, SandboxLimits
from agentgym.sandboxes.local.session import Session

SECONDS = 10.0
_KNOWN = ("HOME", "PATH", "LANG", "LC_CTYPE", "TMPDIR", "USER")
# an act a wall; what succeeds is named, and undone
_CODE = """
def _try():
    import ctypes, os, resource, socket
    secret, home, host, known, limits = {secret!r}, {home!r}, {host!r}, {known!r}, {limits!r}
    libc = ctypes.CDLL(None)
    acts = {{
        "opens a socket": lambda: socket.socket().close(),
        "reads a file of the host's": lambda: open(secret).close(),
        "reads /etc/shadow": lambda: open("/etc/shadow").close(),
        "reads the home folder": lambda: open(home or secret).close(),
        "writes beside the programs": lambda: (open("/usr/.agentgym", "w").close(), os.unlink("/usr/.agentgym")),
        "signals the host": lambda: os.kill(host, 0),
        "sees the host's environment": lambda: set(os.environ) - set(known) or 1 / 0,
        "runs without a filter": lambda: libc.prctl(21) == 2 and 1 / 0,
        "may gain rights": lambda: libc.prctl(39, 0, 0, 0, 0) == 1 and 1 / 0,
    }}
    for name, least in limits.items():
        act = lambda n=name, v=least: 0 <= resource.getrlimit(getattr(resource, n))[1] <= v and 1 / 0
        acts["is not held to " + name] = act
    failed = []
    for name, act in acts.items():
        try:
            act()
        except (OSError, ZeroDivisionError):
            continue
        failed.append(name)
    return ", ".join(failed)
_try()
"""


async def prove(session: Session, capabilities: Capabilities) -> None:
    """Raise `SandboxUnavailable` that names the walls which do not hold in this session, a fresh one."""
    with _secret() as secret:
        told, _ = await session.call("exec", code(secret, session.limits).encode(), SECONDS)
    faults = _faults(told)
    if session.counted != (capabilities.memory == "cgroup"):
        faults = f"{faults}, is in no control group".removeprefix(", ")
    if faults:
        raise SandboxUnavailable(
            f"the local sandbox ({capabilities.isolation}) does not hold here: a session in it {faults}; nothing is run"
        )


def code(secret: str, limits: SandboxLimits) -> str:
    """What the session is to try; `secret`: a file of the host's, open to all."""
    held: Mapping[str, int] = {
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_FSIZE": limits.disk,
        "RLIMIT_CPU": max(1, int(limits.cpu_seconds)),
        "RLIMIT_CORE": 0,
    }
    return _CODE.format(secret=secret, home=_at_home(), host=os.getpid(), known=_KNOWN, limits=held)


def _at_home() -> str:
    """A file of this user's; empty where there is none."""
    with contextlib.suppress(OSError), os.scandir(os.path.expanduser("~")) as entries:
        return next((entry.path for entry in entries if entry.is_file() and os.access(entry.path, os.R_OK)), "")
    return ""


def _faults(told: ExecResult) -> str:
    if not told.ok or told.result is None:
        return f"answered {told.status} {told.error} to the first code that it was given"
    return told.result.strip("'\"")


@contextlib.contextmanager
def _secret() -> Iterator[str]:
    handle, path = tempfile.mkstemp(prefix="agentgym-canary-")
    try:
        os.fchmod(handle, 0o644)  # so that it is a wall that refuses it, not its mode
        yield path
    finally:
        os.close(handle)
        Path(path).unlink(missing_ok=True)
