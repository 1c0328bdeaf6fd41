"""What this machine offers to sandboxes, and which backends really work on it."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import http.client
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from agentgym.errors import AgentGymError
from agentgym.execution import SandboxSpec
from agentgym.sandboxes.backends import BACKENDS, make_backend

TRIED: dict[str, tuple[str, dict[str, Any]]] = {
    "local": ("local", {}),
    "landlock": ("landlock", {}),
    "docker": ("docker", {}),
    "e2b": ("e2b", {}),
}
"""What is tried: a backend's name and its options."""
TRY_SECONDS = 90.0
_UNSHARE = "import ctypes, os; os._exit(ctypes.CDLL(None, use_errno=True).unshare(0x10000000) and ctypes.get_errno())"


async def examine() -> dict[str, Any]:
    """{"machine": facts by name, "backends": {name: {"works", ...}}}; creates a session of every backend it can."""
    return {"machine": machine(), "backends": {shown: await attempt(*how) for shown, how in TRIED.items()}}


def machine() -> dict[str, Any]:
    """Facts; a text where something is missing says so."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "user": "root" if os.geteuid() == 0 else f"uid {os.geteuid()}",
        "user_namespaces": _user_namespaces(),
        "cgroups": _cgroups(),
        "seccomp": _seccomp(),
        "landlock_abi": _landlock(),
        "docker_engine": _docker(),
        "e2b_key": bool(os.environ.get("E2B_API_KEY")),
    }


async def attempt(name: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Make a session and run a line in it: {"works": True, isolation, memory, network, seconds} or {"works": False,
    "why"}."""
    if name == "e2b" and not os.environ.get("E2B_API_KEY"):
        return {"works": False, "why": "E2B_API_KEY is not set"}
    module = BACKENDS[name].partition(":")[0]
    if find_spec(module) is None:
        return {"works": False, "why": f"this version has no {module}"}
    began = time.monotonic()
    try:
        async with asyncio.timeout(TRY_SECONDS):
            backend = make_backend(name, **(options or {}))
            try:
                box = await backend.create(SandboxSpec())
                try:
                    done = await box.exec("40 + 2")
                finally:
                    await box.close()
                can = backend.capabilities
            finally:
                await backend.aclose()
    except (AgentGymError, ImportError, OSError) as e:
        return {"works": False, "why": str(e) or type(e).__name__}
    except TimeoutError:
        return {"works": False, "why": f"no session within {TRY_SECONDS:g} s"}
    if done.result != "42":
        return {"works": False, "why": f"40 + 2 gave {done.status.value} {done.result} {done.error}"}
    seconds = round(time.monotonic() - began, 3)
    return {"works": True, "isolation": can.isolation, "memory": can.memory, "network": can.network, "seconds": seconds}


def _user_namespaces() -> bool | str:
    if not sys.platform.startswith("linux"):
        return "none: not Linux"
    code = subprocess.run([sys.executable, "-I", "-S", "-c", _UNSHARE], check=False).returncode
    if code == errno.ENOSPC:  # what the kernel says where the limit is reached, and has nothing to do with disks
        return "refused: user.max_user_namespaces allows no more"
    return True if code == 0 else f"refused: {os.strerror(code)}"


def _cgroups() -> str:
    from agentgym.sandboxes.local.cgroups import Groups

    groups = Groups.open()
    if groups is None:
        there = Path("/sys/fs/cgroup").is_dir()
        return "none that may be written: memory is watched instead" if there else "none: memory is watched instead"
    groups.close()
    return f"version {groups.version}, writable"


def _seccomp() -> bool | str:
    try:
        return "errno" in Path("/proc/sys/kernel/seccomp/actions_avail").read_text().split()
    except OSError:
        return "not known"


def _landlock() -> int:
    """The kernel's version of Landlock; 0 for none."""
    if not sys.platform.startswith("linux"):
        return 0
    create_ruleset, version = 444, 1
    abi: int = ctypes.CDLL(None, use_errno=True).syscall(create_ruleset, None, ctypes.c_size_t(0), version)
    return max(0, abi)


def _docker() -> bool | str:
    """Whether an engine answers where DOCKER_HOST, or the default, says."""
    where = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    kind, _, place = where.partition("://")
    connection = http.client.HTTPConnection(place if kind in ("tcp", "http") else "localhost", timeout=5)
    try:
        if kind == "unix":
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(5)
            connection.sock.connect(place)
        connection.request("GET", "/_ping")
        return connection.getresponse().status == 200
    except OSError as e:
        return f"{where}: {e.strerror or e}"
    finally:
        connection.close()
