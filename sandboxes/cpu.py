"""CPU time of all that takes part: a zygote lives on, so what the system says of ended children leaves most out."""

from __future__ import annotations

import os
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
COUNTED = {
    "tree": "this process, all its descendants that live, and what those that ended had used (/proc/*/stat)",
    "machine": "all cores of this machine while it ran, other work included (/proc/stat)",
}


def tree_cpu(root: int | None = None) -> float:
    """CPU-seconds so far of a process (this one) and all below it, ended children included."""
    ticks, pending = 0, [os.getpid() if root is None else root]
    while pending:
        pid = pending.pop()
        try:
            # after the name: utime, stime and those of children that were waited for are fields 14 to 17
            ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
            for task in os.listdir(f"/proc/{pid}/task"):
                pending += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
        except OSError:
            continue  # it ended while we looked; its parent has it
    return ticks / TICK


def machine_cpu() -> float:
    """CPU-seconds so far of everything that ran here."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    idle = int(words[3]) + int(words[4])
    return (sum(map(int, words)) - idle) / TICK


def counting(isolation: str) -> str:
    """How to count a backend's CPU: what a container engine starts is no descendant of this process."""
    return "tree" if isolation in ("namespaces", "landlock", "none") else "machine"


def cpu(how: str) -> float:
    return tree_cpu() if how == "tree" else machine_cpu()
