"""Build the environment of a CPU SGLang server, once: `python requirements/sglang_cpu.py` prints its python.

It lies in the user's cache folder under a name that holds the hash of the requirement files, so that a change of
theirs makes a new one. A build that was interrupted leaves no stamp and is begun again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
FILES = (HERE / "sglang-cpu.txt", HERE / "sglang-cpu-nodeps.txt")
GIB = 1 << 30
NEEDED = 8 * GIB
"""Bytes that the environment takes (3.1 GiB) and that pip holds besides while it downloads and unpacks."""
STAMP = ".complete"


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agentgym"


def folder() -> Path:
    """Where the environment of these requirement files, this Python and this machine's kind lies."""
    digest = hashlib.sha256()
    for path in FILES:
        digest.update(path.read_bytes())
    digest.update(f"{sys.version_info[:2]} {platform.machine()}".encode())
    return cache_folder() / f"sglang-cpu-{digest.hexdigest()[:12]}"


def build(target: Path) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < NEEDED:
        sys.exit(
            f"{target.parent}: {free / GIB:.1f} GiB are free, the SGLang environment takes {NEEDED / GIB:.0f}; "
            "make room, or name another folder by XDG_CACHE_HOME"
        )
    began = time.monotonic()
    say(f"building {target} (about 12 minutes on two cores, 3 GiB)")
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(target)], check=True, stdout=sys.stderr)
    pip = ["nice", "-n", "10", str(target / "bin/python"), "-m", "pip", "install", "-q"]
    subprocess.run([*pip, "-r", str(FILES[0])], check=True, stdout=sys.stderr)
    subprocess.run([*pip, "--no-deps", "-r", str(FILES[1])], check=True, stdout=sys.stderr)
    (target / STAMP).write_text(f"{time.monotonic() - began:.0f} s\n")
    say(f"built in {time.monotonic() - began:.0f} s")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    target = folder()
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.with_suffix(".lock"), "w") as lock:  # two calls at once build it once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / STAMP).exists():
            build(target)
    print(target / "bin/python")


if __name__ == "__main__":
    main()
