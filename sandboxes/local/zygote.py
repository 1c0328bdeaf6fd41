"""The host's handle on a zygote: starts it, asks it for sessions, ends it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentgym.errors import SandboxFault, SandboxUnavailable
from agentgym.sandboxes.local.waiting import readable

FOLDER = str(Path(__file__).parent)
START = "import sys; sys.path.insert(0, sys.argv[2]); from jail.zygote import main; main()"
START_SECONDS = 30.0
REMEDIES = """What helps, any one of:
  - allow user namespaces: sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000
    (Ubuntu 24.04 and later: also kernel.apparmor_restrict_unprivileged_userns=0)
  - inside a container: start it with --security-opt seccomp=unconfined
  - another backend: docker or e2b
  - weaker walls, which need no namespaces: the backend landlock (Linux 5.13; 6.12 unless root):
    --sandbox.backend=landlock
  - code that you trust: LocalBackend(allow_unsafe=True), with no walls at all"""
PARTING = {"namespaces": signal.SIGKILL, "landlock": signal.SIGTERM, "none": signal.SIGTERM}
"""What ends a session when its init is sent it: the kernel ends a pid namespace, without one the init does it."""


@dataclass(slots=True)
class Zygote:
    """A running zygote; `preload` are modules that every session finds imported. `tier`: see `jail.tiers`."""

    preload: Sequence[str] = ()
    tier: str = "namespaces"
    process: subprocess.Popen[bytes] | None = None
    _socket: socket.socket | None = None
    _turns: weakref.WeakKeyDictionary[Any, asyncio.Lock] = field(default_factory=weakref.WeakKeyDictionary)

    @property
    def parting(self) -> signal.Signals:
        return PARTING[self.tier]

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    async def fork(self, limits: Mapping[str, Any], fds: Sequence[int]) -> tuple[int, int]:
        """(pid, pidfd) of a new session's init; `fds` are its stream and where stdout and stderr go."""
        turn = self._turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())
        async with turn:
            if not self.alive:
                self.close()
                await self._start()
            assert self._socket is not None
            try:
                socket.send_fds(self._socket, [json.dumps(limits).encode()], fds)
                try:
                    answer, got = await self._answer()
                except asyncio.CancelledError:
                    # the answer is under way: left unread, it would be taken for that of the next request
                    for fd in socket.recv_fds(self._socket, 65536, 1)[1]:
                        os.close(fd)
                    raise
            except OSError as e:
                raise SandboxFault(f"the sandbox's zygote is gone: {e}") from e
        if "error" in answer:
            raise SandboxFault(f"no session could be forked: {answer['error']}")
        return int(answer["pid"]), got[0]

    async def _answer(self) -> tuple[dict[str, Any], list[int]]:
        assert self._socket is not None
        await readable(self._socket.fileno())
        data, fds, _, _ = socket.recv_fds(self._socket, 65536, 1)
        if not data:
            raise SandboxFault("the sandbox's zygote ended")
        answer: dict[str, Any] = json.loads(data)
        return answer, list(fds)

    async def _start(self) -> None:
        if not sys.platform.startswith("linux"):
            raise SandboxUnavailable("the local sandbox needs Linux; use the docker or e2b backend")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        config = {
            "fd": theirs.fileno(),
            "preload": list(self.preload),
            "tier": self.tier,
            "parting": int(self.parting),
            **_places(bool(self.preload)),
        }
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", "-c", START, json.dumps(config), FOLDER],
                env={},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._socket = ours
        try:
            async with asyncio.timeout(START_SECONDS):
                answer, _ = await self._answer()
        except (TimeoutError, SandboxFault) as e:
            self.close()
            raise SandboxUnavailable(f"the local sandbox did not start ({e or 'no answer'})\n{REMEDIES}") from None
        if "error" in answer:
            self.close()
            raise SandboxUnavailable(
                f"the local sandbox ({self.tier}) cannot be built here: {answer['error']}\n{REMEDIES}"
            )

    def close(self) -> None:
        """End it; the sessions' inits end with it."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self.process is not None:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


def _places(packages: bool) -> dict[str, Any]:
    """What of the file system the interpreter needs: its installation; with `packages` the installed ones too."""
    binds = [sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable))]
    path: list[str] = []
    if packages:
        path = [entry for entry in sys.path if os.path.basename(entry) in ("site-packages", "dist-packages")]
    programs = f"{os.path.realpath(sys.base_prefix)}/bin:/usr/local/bin:/usr/bin:/bin"
    return {"binds": list(dict.fromkeys(binds)), "path": path, "forget": [FOLDER], "env_path": programs}
