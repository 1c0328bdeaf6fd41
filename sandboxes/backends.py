"""Backends by name, and the one-line way to a sandbox."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from typing import Any
from weakref import WeakKeyDictionary

from agentgym.errors import ConfigError
from agentgym.execution import SandboxLimits, SandboxSpec
from agentgym.loading import load_object
from agentgym.protocols import Sandbox, SandboxBackend
from agentgym.sandboxes.pool import Pool

BACKENDS = {
    "local": "agentgym.sandboxes.local:LocalBackend",
    "landlock": "agentgym.sandboxes.local.backend:landlock",
    "docker": "agentgym.sandboxes.docker:DockerBackend",
    "e2b": "agentgym.sandboxes.e2b:E2BBackend",
    "fake": "agentgym.sandboxes.fake:FakeBackend",
}
POOL_SIZE = 128
"""Sandboxes at once, where nothing else is asked for."""
_LIMITS = {field.name for field in fields(SandboxLimits)}
_SPEC = {field.name for field in fields(SandboxSpec)} - {"limits"}
_shared: dict[str, SandboxBackend] = {}


def make_backend(name: str, **options: Any) -> SandboxBackend:
    """A backend of one's own: a name of `BACKENDS`, or `path.py:Class` of anyone's. `aclose` ends it."""
    if ":" in name:
        made = load_object(name, "sandbox backend")
    elif name in BACKENDS:
        module, _, attribute = BACKENDS[name].partition(":")
        made = getattr(import_module(module), attribute)
    else:
        raise unknown_backend(name)
    try:
        backend: SandboxBackend = made(**options)
    except TypeError as e:
        raise ConfigError(f"sandbox backend {name!r}: {e}") from None
    return backend


def unknown_backend(name: Any) -> ConfigError:
    close = difflib.get_close_matches(str(name), BACKENDS, n=1)
    nearest = f"; did you mean {close[0]!r}?" if close else ""
    return ConfigError(f"no sandbox backend {name!r}{nearest} (there are: {', '.join(BACKENDS)}, or path.py:Class)")


def shared_backend(name: str = "local") -> SandboxBackend:
    """The process's backend of that name, made at the first use; it ends with the process."""
    if name not in _shared:
        _shared[name] = make_backend(name)
    return _shared[name]


def make_spec(**given: Any) -> SandboxSpec:
    """A spec from fields of `SandboxSpec` and of `SandboxLimits`: `make_spec(memory=1 << 30, files={...})`."""
    if unknown := [name for name in given if name not in _LIMITS | _SPEC]:
        close = difflib.get_close_matches(unknown[0], _LIMITS | _SPEC, n=1)
        raise ConfigError(f"sandbox: unknown setting {unknown[0]!r}{f'; did you mean {close[0]!r}?' if close else ''}")
    try:
        limits = SandboxLimits(**{name: value for name, value in given.items() if name in _LIMITS})
        return SandboxSpec(limits, **{name: value for name, value in given.items() if name in _SPEC})
    except ValueError as e:
        raise ConfigError(str(e)) from None


_pools: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, int], Pool]] = WeakKeyDictionary()


def shared_pool(backend: str = "local", size: int | None = None) -> Pool:
    """The pool in front of a shared backend, one of each size an event loop."""
    pools = _pools.setdefault(asyncio.get_running_loop(), {})
    key = (backend, size or POOL_SIZE)
    if key not in pools:
        pools[key] = Pool(shared_backend(backend), key[1])
    return pools[key]


def check_settings(given: Mapping[str, Any]) -> None:
    """An env's sandbox settings; raises `ConfigError` for those that are none."""
    settings = dict(given)
    name, size = settings.pop("backend", "local"), settings.pop("at_once", POOL_SIZE)
    if not isinstance(name, str) or (":" not in name and name not in BACKENDS):
        raise unknown_backend(name)
    if not isinstance(size, int) or size < 1:
        raise ConfigError(f"sandbox at_once = {size!r}: must be a whole number from 1 on")
    make_spec(**settings)


async def create(backend: str | SandboxBackend = "local", **spec: Any) -> Sandbox:
    """A sandbox, ready: `async with await create(timeout=5) as box: await box.exec("1 + 1")`.

    backend: a name, as `make_backend` takes, or a backend. spec: fields of `SandboxSpec` and `SandboxLimits`. Raises
    `SandboxUnavailable` where this machine cannot hold one, `ConfigError` for what is no such setting.
    """
    source = shared_backend(backend) if isinstance(backend, str) else backend
    return await source.create(make_spec(**spec))


def lent() -> int:
    """How many sandboxes of this event loop's shared pools are on loan."""
    return sum(pool.stats.lent for pool in _pools.get(asyncio.get_running_loop(), {}).values())
