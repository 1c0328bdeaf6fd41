"""Hardened containers: what they are given, and how one is begun."""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass
from typing import Any

from agentgym.errors import SandboxFault, SandboxUnavailable
from agentgym.execution import SandboxLimits
from agentgym.sandboxes.docker.engine import Engine, connection_errors
from agentgym.sandboxes.docker.inside import LOADER, bundle
from agentgym.sandboxes.docker.owners import labels, remove
from agentgym.sandboxes.docker.session import ContainerSession

WORK = "/work"
NOBODY = "65534:65534"
FOLDERS = (WORK, "/tmp", "/dev/shm")
ENVIRONMENT = {"HOME": WORK, "TMPDIR": "/tmp", "LANG": "C.UTF-8", "USER": "agent"}
OOM_SCORE = 500
"""Where the machine itself runs out of memory, containers go before the trainer."""
LEAST_FILES = 32
OWN_MEMORY = 16 << 20
"""What supervisor and worker take before any code runs: not the code's to pay."""
PERIOD = 10_000
"""Microseconds over which CPU time is counted: a container that has used its own up is held for at most so long, its
supervisor too. The engine's own 100 ms would be how late a deadline is met."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All that containers must share to stand in for each other."""

    image: str
    limits: SandboxLimits
    """Those that the engine holds; output and timeout are a call's own."""
    user: str = NOBODY
    folder: str = ""
    """A working directory outside of FOLDERS, which has to be writable too."""
    keeps: bool = False
    """The image has files in that folder."""


@dataclass(frozen=True, slots=True)
class Walls:
    """Settings of the backend that hold for all its containers."""

    cpus: float = 1.0
    read_only: bool = True
    runtime: str | None = None


def settings(plan: Plan, walls: Walls) -> dict[str, Any]:
    """`HostConfig` of a container: nothing in, nothing out, nothing to be had."""
    limits = plan.limits
    size = f"size={limits.disk},nr_inodes={max(256, limits.disk >> 12)},mode=1777,nosuid,nodev{_owner(plan.user)}"
    own = (plan.folder,) if plan.folder and not plan.keeps else ()
    return {
        "network_mode": "none",
        "ipc_mode": "none",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "privileged": False,
        "read_only": walls.read_only,
        "tmpfs": dict.fromkeys((*FOLDERS, *own), f"rw,exec,{size}"),
        "mem_limit": limits.memory + OWN_MEMORY,
        "memswap_limit": limits.memory + OWN_MEMORY,
        "pids_limit": limits.processes + 2,  # its supervisor and its worker
        "cpu_period": PERIOD,
        "cpu_quota": max(1000, int(walls.cpus * PERIOD)),
        "oom_score_adj": OOM_SCORE,
        "runtime": walls.runtime,
    }


def _owner(user: str) -> str:
    """Where an image has such a folder already, the engine gives ours its mode: so it is the user's."""
    uid, _, gid = user.partition(":")
    return (f",uid={uid}" if uid.isdigit() else "") + (f",gid={gid}" if gid.isdigit() else "")


def ulimits(limits: SandboxLimits) -> dict[str, int]:
    return {
        "core": 0,
        "cpu": max(1, int(limits.cpu_seconds)),
        "fsize": limits.disk,
        "memlock": 1 << 16,
        "msgqueue": 0,
        "nofile": max(LEAST_FILES, limits.open_files),
    }


def start(engine: Engine, plan: Plan, walls: Walls) -> ContainerSession:
    """A container whose worker waits for requests; raises `SandboxFault` and leaves none behind. Blocks."""
    with engine.errors("a container could not be made"):
        made = _create(engine, plan, walls)
    name = made["Id"]
    try:
        _check(made.get("Warnings") or [])
        with engine.errors(f"a container of image {plan.image!r} could not be started"):
            stream = _attach(engine, name)
            session = ContainerSession(engine, name, stream, plan.limits)
            try:
                engine.client.start(name)
            except BaseException:
                stream.close()
                raise
        session.greet(bundle())
    except SandboxFault as e:
        remove(engine, name)
        raise _explained(e, plan) from e
    except BaseException:
        remove(engine, name)
        raise
    return session


def _create(engine: Engine, plan: Plan, walls: Walls) -> dict[str, Any]:
    from docker.types import LogConfig, Ulimit

    client = engine.client
    bounds = [Ulimit(name=name, soft=value, hard=value) for name, value in ulimits(plan.limits).items()]
    made: dict[str, Any] = client.create_container(
        plan.image,
        entrypoint=["python3", "-I", "-c", LOADER],
        command=[],
        environment=ENVIRONMENT,
        working_dir=WORK,
        hostname="sandbox",
        user=plan.user,
        labels=labels(),
        stdin_open=True,  # and, as the SDK sets it, once: the end of our stream is the end of its stdin
        volumes=[plan.folder] if plan.keeps else None,
        stop_signal="SIGKILL",
        healthcheck={"test": ["NONE"]},
        host_config=client.create_host_config(
            ulimits=bounds, log_config=LogConfig(type="none"), **settings(plan, walls)
        ),
    )
    return made


def _attach(engine: Engine, name: str) -> socket.socket:
    """The stream to the first process, as a socket of our own. Nothing has come on it: the container does not run."""
    attached = engine.client.attach_socket(name, {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    own = socket.socket(fileno=os.dup(attached.fileno()))
    with contextlib.suppress(AttributeError, OSError):
        attached.close()
    return own


def _check(warnings: list[str]) -> None:
    """An engine that cannot hold a limit says so and goes on; we do not."""
    for warning in warnings:
        text = warning.lower()
        if "discarded" in text and ("memory limit" in text or "pids limit" in text):
            raise SandboxUnavailable(
                f"the Docker engine cannot hold a sandbox's limits: {warning} "
                "(a rootless engine needs cgroup v2 with the memory and pids controllers delegated to it)"
            )


def _explained(error: SandboxFault, plan: Plan) -> SandboxFault:
    if "python3" in str(error) and "not found" in str(error):
        return SandboxUnavailable(
            f"image {plan.image!r} has no python3; the docker sandbox needs Python 3.8 or newer in it"
        )
    return error


def has_files(engine: Engine, image: str, folder: str) -> bool:
    """Whether an image has something at that path. Blocks."""
    from docker.errors import APIError, NotFound

    with engine.errors(f"image {image!r} could not be looked into"):
        name = engine.client.create_container(image, command=["none"], labels=labels())["Id"]
        try:
            stream, _ = engine.client.get_archive(name, folder)
            stream.close()
            return True
        except NotFound:
            return False
        except (APIError, *connection_errors()) as e:
            raise SandboxFault(f"image {image!r}: {folder} could not be read: {e}") from e
        finally:
            remove(engine, name)
