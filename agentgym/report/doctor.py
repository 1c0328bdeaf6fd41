"""What this machine has: for bug reports, and for whoever wonders why something is slow or missing."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import Any

# extra -> (distribution, what it brings)
EXTRAS = {
    "cluster": ("ray", "training over several machines"),
    "sglang": ("sglang", "a fast engine on GPUs"),
    "docker": ("docker", "sandboxes in containers"),
    "e2b": ("e2b-code-interpreter", "sandboxes in the cloud"),
    "lora": ("peft", "training of adapters"),
    "mcp": ("mcp", "tools of MCP servers"),
    "agents": ("openai", "programs that call an OpenAI-compatible endpoint"),
    "adapters": ("reasoning-gym", "environments of other packages"),
}


def examine() -> dict[str, Any]:
    """The facts: versions, cores, memory (GiB), devices, extras (a version, or None where one is not installed)."""
    from agentgym import __version__

    return {
        "agentgym": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": _version("torch"),
        "transformers": _version("transformers"),
        "gymnasium": _version("gymnasium"),
        "cores": _cores(),
        "memory_gib": _memory(),
        "disk_free_gib": round(shutil.disk_usage(".").free / 2**30, 1),
        "devices": _devices(),
        "extras": {name: _version(package) for name, (package, _) in EXTRAS.items()},
    }


def lines(facts: dict[str, Any]) -> dict[str, str]:
    """The facts as a person wants to read them."""
    shown = {key: str(value) for key, value in facts.items() if key not in ("extras", "devices")}
    shown["devices"] = ", ".join(facts["devices"])
    for name, found in facts["extras"].items():
        shown[f"extra {name}"] = found or f"not installed: {EXTRAS[name][1]} (pip install 'agentgym-train[{name}]')"
    return shown


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cores() -> int:
    """Cores this process may use: its affinity, and a container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
        return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores


def _memory() -> float | None:
    """GiB that this process may use."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    try:
        with open("/sys/fs/cgroup/memory.max") as file:
            limit = file.read().strip()
        total = min(total, int(limit)) if limit != "max" else total
    except (OSError, ValueError):
        pass
    return round(total / 2**30, 1)


def _devices() -> list[str]:
    if importlib.util.find_spec("torch") is None:
        return ["cpu"]
    import torch

    found = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]
