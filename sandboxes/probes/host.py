"""The host's side of a probe: secrets to be found, a process to be attacked, ears on the network, all harmless."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

from agentgym.sandboxes.probes.inside import program

VARIABLE = "AGENTGYM_PROBE_SECRET"
# a process of the trainer's user with the secret in its arguments, environment, memory and an open file
_VICTIM = """
import ctypes, os, sys
kept = ctypes.create_string_buffer(os.environ["AGENTGYM_PROBE_SECRET"].encode())
ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)
fd = os.open(sys.argv[2], os.O_RDONLY)
print(ctypes.addressof(kept), fd, flush=True)
sys.stdin.read()
"""


class Host:
    """What acts are told (`facts`), and what arrived here because of them (`heard`)."""

    def __init__(self) -> None:
        self.nonce = secrets.token_hex(12)
        self.folder = Path(tempfile.mkdtemp(prefix="agentgym-probe-"))
        self.secret = self.folder / "secret"
        self.heard: set[str] = set()
        self._exits = contextlib.AsyncExitStack()
        self._victim: asyncio.subprocess.Process | None = None
        self._facts: dict[str, Any] = {}
        self._tags = 0

    async def __aenter__(self) -> Self:
        self._exits.callback(shutil.rmtree, self.folder, ignore_errors=True)
        try:
            self.secret.write_text(self.nonce)
            self.secret.chmod(0o600)
            os.environ[VARIABLE] = self.nonce
            self._exits.callback(os.environ.pop, VARIABLE, None)
            leak = os.open(self.secret, os.O_RDONLY)
            self._exits.callback(os.close, leak)
            os.set_inheritable(leak, True)
            self._facts = {
                "nonce": self.nonce,
                "folder": str(self.folder),
                "secret": str(self.secret),
                "home": os.path.expanduser("~"),
                "checkout": str(Path(__file__).resolve().parents[2]),
                "leak": leak,
                "supervisor": os.getpid(),
                "handle": _handle(self.secret),
                "interfaces": [name for name in os.listdir("/sys/class/net") if name != "lo"],
            }
            self._facts["ids"] = {
                name: _identity(path)
                for name, path in (*((n, self._facts[n]) for n in ("home", "checkout")), ("shadow", "/etc/shadow"))
            }
            await self._listen()
            await self.victim()
        except BaseException:
            await self._exits.aclose()
            raise
        self._exits.push_async_callback(self._end_victim)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    @property
    def facts(self) -> dict[str, Any]:
        return self._facts

    async def facts_now(self) -> dict[str, Any]:
        """Facts with a victim that lives and a tag for the processes of the next act."""
        await self.victim()
        self._tags += 1
        return {**self._facts, "tag": f"p{self.nonce[:8]}{self._tags:x}"}

    async def victim(self) -> int:
        """The pid of the process that may be attacked."""
        if self._victim is None or self._victim.returncode is not None:
            self._victim = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-B", "-c", _VICTIM, self.nonce, str(self.secret)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
            assert self._victim.stdout is not None
            address, fd = map(int, (await self._victim.stdout.readline()).split())
            self._facts |= {"victim": self._victim.pid, "address": address, "victim_fd": fd}
        return self._victim.pid

    async def victim_died(self) -> bool:
        """Whether it has ended, with a moment for the news to arrive."""
        assert self._victim is not None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._victim.wait(), 0.3)
        return self._victim.returncode is not None

    async def _end_victim(self) -> None:
        if self._victim is not None and self._victim.returncode is None:
            self._victim.kill()
            await self._victim.wait()

    async def _listen(self) -> None:
        async def told(what: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, TimeoutError):
                if self.nonce.encode() in await asyncio.wait_for(reader.read(200), 5):
                    self.heard.add(what)
            writer.close()

        tcp = await asyncio.start_server(lambda r, w: told("tcp", r, w), "127.0.0.1", 0)
        path = await asyncio.start_unix_server(lambda r, w: told("path", r, w), str(self.folder / "socket"))
        name = f"agentgym-{self.nonce}"
        abstract = await asyncio.start_unix_server(lambda r, w: told("abstract", r, w), f"\0{name}")
        ears: asyncio.DatagramProtocol = _Ears(self)
        udp, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: ears, ("127.0.0.1", 0))
        self._exits.callback(udp.close)
        for server in (tcp, path, abstract):
            self._exits.callback(server.close)
        self._facts |= {
            "tcp": tcp.sockets[0].getsockname()[1],
            "udp": udp.get_extra_info("sockname")[1],
            "unix": str(self.folder / "socket"),
            "abstract": name,
        }

    async def unsandboxed(self, code: str, facts: dict[str, Any], seconds: float) -> tuple[str, str]:
        """(stdout, stderr) of the act as a plain process of this user, with everything a child of it inherits."""
        folder = tempfile.mkdtemp(dir=self.folder)
        process = await self.start(code, facts, folder)
        try:
            out, err = await asyncio.wait_for(process.communicate(), seconds)
        except TimeoutError:
            out, err = b"", b"no end within its time"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        return out.decode(errors="replace"), err.decode(errors="replace")

    async def start(self, code: str, facts: dict[str, Any], folder: str) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        # the program comes from a file: it may be longer than an argument can be
        script = Path(folder) / ".act.py"
        script.write_text(program(code, facts))
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-B", str(script)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            cwd=folder,
            close_fds=False,
            start_new_session=True,
        )


class _Ears(asyncio.DatagramProtocol):
    def __init__(self, host: Host):
        self._host = host

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self._host.nonce.encode() in data:
            self._host.heard.add("udp")


def _identity(path: str) -> list[int] | None:
    try:
        found = os.stat(path)
        return [found.st_dev, found.st_ino] if os.access(path, os.R_OK) else None
    except OSError:
        return None


def _handle(path: Path) -> str:
    """The file's handle (man 2 name_to_handle_at) in hexadecimal; empty where its file system has none."""
    buffer = ctypes.create_string_buffer(8 + 128)
    ctypes.c_uint.from_buffer(buffer).value = 128
    mount = ctypes.c_int()
    try:
        name_to_handle_at = ctypes.CDLL(None).name_to_handle_at
    except (OSError, AttributeError):
        return ""
    if name_to_handle_at(-100, os.fsencode(path), buffer, ctypes.byref(mount), 0):
        return ""
    return buffer.raw[: 8 + ctypes.c_uint.from_buffer(buffer).value].hex()


def tagged(tag: str) -> list[int]:
    """Processes of this machine that took `tag` as their name, zombies too."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError), open(f"{entry.path}/comm") as file:
                if file.read().strip() == tag:
                    found.append(int(entry.name))
    return found


async def gone(tag: str, seconds: float = 5.0) -> bool:
    """Whether none is left, within so many seconds."""
    deadline = asyncio.get_running_loop().time() + seconds
    while tagged(tag):
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


def sweep(tag: str) -> None:
    """End what a control left running."""
    for pid in tagged(tag):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
