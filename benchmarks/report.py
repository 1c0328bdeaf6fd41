"""What every benchmark's JSON says beside its figures: the machine, the versions, median and spread."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """Where the figures were taken."""
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def versions(*distributions: str) -> dict[str, str]:
    """Installed versions by the name of the distribution."""
    return {name: version(name) for name in distributions}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def write(path: Path | None, report: Mapping[str, Any]) -> None:
    """Write the report as JSON, where a file was asked for."""
    if path is not None:
        path.write_text(json.dumps(report, indent=1) + "\n")
