"""Backends by name, and the one-line way to a sandbox."""

from __future__ import annotations

import difflib
from dataclasses import fields
from importlib import import_module
from typing import Any

from agentgym.errors import ConfigError
from agentgym.execution import SandboxLimits, SandboxSpec
from agentgym.loading import load_object
from agentgym.protocols import Sandbox, SandboxBackend

BACKENDS = {
    "local": "agentgym.sandboxes.local:LocalBackend",
    "docker": "agentgym.sandboxes.docker:DockerBackend",
    "e2b": "agentgym.sandboxes.e2b:E2BBackend",
    "fake": "agentgym.sandboxes.fake:FakeBackend",
}
_LIMITS = {field.name for field in fields(SandboxLimits)}
_SPEC = {field.name for field in fields(SandboxSpec)} - {"limits"}
_shared: dict[str, SandboxBackend] = {}


def make_backend(name: str, **options: Any) -> SandboxBackend:
    """A backend of one's own: "local", "docker", "e2b", "fake", or `path.py:Class` of anyone's. `aclose` ends it."""
    if ":" in name:
        made = load_object(name, "sandbox backend")
    elif name in BACKENDS:
        module, _, attribute = BACKENDS[name].partition(":")
        made = getattr(import_module(module), attribute)
    else:
        close = difflib.get_close_matches(name, BACKENDS, n=1)
        nearest = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"no sandbox backend {name!r}{nearest} (there are: {', '.join(BACKENDS)}, or path.py:Class)")
    try:
        backend: SandboxBackend = made(**options)
    except TypeError as e:
        raise ConfigError(f"sandbox backend {name!r}: {e}") from None
    return backend


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


async def create(backend: str | SandboxBackend = "local", **spec: Any) -> Sandbox:
    """A sandbox, ready: `async with await create(timeout=5) as box: await box.exec("1 + 1")`.

    backend: a name, as `make_backend` takes, or a backend. spec: fields of `SandboxSpec` and `SandboxLimits`. Raises
    `SandboxUnavailable` where this machine cannot hold one, `ConfigError` for what is no such setting.
    """
    source = shared_backend(backend) if isinstance(backend, str) else backend
    return await source.create(make_spec(**spec))
