"""What running untrusted code takes and gives: limits, a spec, a result, and what a backend can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal


class ExecStatus(StrEnum):
    ok = "ok"
    error = "error"
    """The code raised, or a command ended with a code other than 0."""
    timeout = "timeout"
    oom = "oom"
    """It asked for more memory than it was given."""
    killed = "killed"
    """Its process ended: a signal, `os._exit`, a crash."""
    infra_error = "infra_error"
    """The sandbox failed, not the code: never a reward of 0."""


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a piece of code ended. Text beyond the output limit is cut, with a marker in its place."""

    status: ExecStatus
    stdout: str = ""
    stderr: str = ""
    result: str | None = None
    """`repr` of the last expression's value; None where there is none."""
    error: str = ""
    """The exception in a line, as `ZeroDivisionError: division by zero`."""
    exit_code: int | None = None
    truncated: bool = False
    duration: float = 0.0
    """Seconds."""
    state_lost: bool = False
    """The session had to be ended: variables and files are gone, the next call begins afresh."""

    @property
    def ok(self) -> bool:
        return self.status is ExecStatus.ok


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """What a session may use. Bytes, seconds and counts, all above 0."""

    memory: int = 512 << 20
    cpu_seconds: int = 600
    """CPU time of one process."""
    timeout: float = 30.0
    """Seconds of one call, where the call names none."""
    processes: int = 64
    open_files: int = 256
    disk: int = 64 << 20
    output: int = 64 << 10
    """Bytes of stdout, and of stderr, that a call gives back."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise ValueError(f"sandbox limit {name} = {value!r}: must be a number above 0")


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """A session to be made: its limits and what a task puts into it."""

    limits: SandboxLimits = field(default_factory=SandboxLimits)
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Written before the first call, by path; relative ones under the working directory."""
    setup: str = ""
    """A shell command that is run once, after the files are there."""
    image: str = ""
    """An image, for backends that have them."""
    dockerfile: str = ""
    """A Dockerfile, or the folder of one, to build the image from; in its place."""
    workdir: str = ""
    """An absolute path; empty: the backend's own. It is made where it is not there."""
    user: str = ""
    """Who runs code and commands, for backends that have users; empty: the backend's own."""

    def __post_init__(self) -> None:
        if self.image and self.dockerfile:
            raise ValueError("sandbox spec: give image or dockerfile, not both")
        if self.workdir and (not self.workdir.startswith("/") or ".." in self.workdir.split("/")):
            raise ValueError(f"sandbox workdir = {self.workdir!r}: must be an absolute path without '..'")
        for path, data in self.files.items():
            if not path or "\0" in path or not isinstance(data, bytes):
                raise ValueError(f"sandbox files: {path!r} must be a path with its content as bytes")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend offers; it refuses a spec that asks for more."""

    isolation: Literal["namespaces", "container", "vm", "landlock", "none", "memory"]
    memory: Literal["cgroup", "watchdog", "container", "none"]
    """Who holds the memory limit over all processes of a session."""
    shell: bool = True
    images: bool = False
    users: bool = False
    network: Literal["none", "host", "own"] = "none"
    """What code can reach; own: a network of the backend's, as of a cloud."""
