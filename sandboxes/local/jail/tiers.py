"""What stands between a session and the machine: one object a zygote, chosen by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from .bare import Bare
from .landlock import Landlock
from .namespaces import Namespaces


class Tier(Protocol):
    """The steps of a session's making, in order. All run in the jail's own processes; errors are `OSError`."""

    flags: int
    """Namespaces that a session is forked into."""
    packages: Sequence[str]
    """Where installed packages are found once it is built."""

    def build(self) -> None:
        """In the zygote, once."""
        ...

    def enter(self, limits: Mapping[str, Any]) -> None:
        """In a session's init, before it is counted and limited."""
        ...

    def seal_init(self) -> None:
        """In the init, for it and all below it."""
        ...

    def seal_worker(self, limits: Mapping[str, Any]) -> None:
        """In the worker, before anybody's code."""
        ...

    def end_others(self) -> None:
        """In the worker: end all of the session but itself and its init."""
        ...

    def wait(self, worker: int, limits: Mapping[str, Any]) -> int:
        """In the init, until the session is over; its exit code."""
        ...


def make(name: str, binds: Sequence[str], packages: Sequence[str]) -> Tier:
    if name == "landlock":
        return Landlock(binds, packages)
    return Namespaces(binds, packages) if name == "namespaces" else Bare(packages)
