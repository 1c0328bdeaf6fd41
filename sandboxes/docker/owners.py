"""Whose a container is, as labels on it, so that what a dead process left behind can be removed by any other."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentgym.sandboxes.docker.engine import Engine

LABEL = "agentgym.sandbox"
BUILT = "agentgym.built"
ABANDONED_SECONDS = 3600.0
"""A container that does not run, of an owner that cannot be asked after, is nobody's after this long."""


def labels() -> dict[str, str]:
    """Those of this process."""
    pid = os.getpid()
    return {
        LABEL: "1",
        f"{LABEL}.machine": _machine(),
        f"{LABEL}.boot": _boot(),
        f"{LABEL}.pids": _pids(),
        f"{LABEL}.pid": str(pid),
        f"{LABEL}.started": _started(pid),
    }


def left_behind(found: Mapping[str, Any]) -> bool:
    """Whether a container, as the engine lists it, belongs to a process that is no more."""
    given = found.get("Labels") or {}
    machine, boot, pids, pid, started = (
        given.get(f"{LABEL}.{name}", "") for name in ("machine", "boot", "pids", "pid", "started")
    )
    if machine == _machine() and boot == _boot() and pids == _pids():
        return not pid.isdigit() or _started(int(pid)) != started
    if machine == _machine() and boot != _boot():
        return True
    idle = found.get("State") not in ("running", "restarting", "paused")
    return idle and time.time() - float(found.get("Created") or 0) > ABANDONED_SECONDS


def reap(engine: Engine) -> list[str]:
    """Remove what dead owners left; the ids of it. Blocks."""
    with engine.errors("containers of earlier runs cannot be listed"):
        listed = engine.client.containers(all=True, filters={"label": f"{LABEL}=1"})
    left = [found["Id"] for found in listed if left_behind(found)]
    for name in left:
        remove(engine, name)
    return left


def remove(engine: Engine, name: str) -> str:
    """Kill and remove a container; why it could not be, empty where it is gone. Blocks."""
    from docker.errors import DockerException, NotFound

    try:
        engine.client.remove_container(name, force=True, v=True)
    except NotFound:
        pass
    except (DockerException, OSError) as e:  # requests' errors are OSErrors
        return "" if "already in progress" in str(e) else str(e)
    return ""


def _machine() -> str:
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        if (text := _text(path)) != "":
            return text
    return platform.node()


def _boot() -> str:
    return _text("/proc/sys/kernel/random/boot_id")


def _pids() -> str:
    """The pid namespace: pids of another mean nothing here."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty where it is gone."""
    if Path("/proc/self/stat").exists():
        return (_text(f"/proc/{pid}/stat").rpartition(")")[2].split() or [""] * 20)[19]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "alive"


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
