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
WORKS = "import importlib.util, torch, transformers; assert importlib.util.find_spec('sglang')"
"""What installs need not start."""


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
    run(sys.executable, "-m", "venv", "--clear", str(target))
    pip = ("nice", "-n", "10", str(target / "bin/python"), "-m", "pip", "install", "-q")
    run(*pip, "-r", str(FILES[0]))
    run(*pip, "--no-deps", "-r", str(FILES[1]))
    run(str(target / "bin/python"), "-c", WORKS)
    (target / STAMP).write_text(f"{time.monotonic() - began:.0f} s\n")
    say(f"built in {time.monotonic() - began:.0f} s")


def run(*command: str) -> None:
    """One step of the build; ends the process where it fails, saying what is to be done."""
    try:
        code = subprocess.run(command, check=False, stdout=sys.stderr).returncode
    except OSError as e:
        code = e.strerror or "it cannot be run"
    if code:
        sys.exit(
            f"the SGLang environment could not be built ({' '.join(command)}: {code}); what went wrong is told above. "
            "It needs the network, x86-64 Linux and Python 3.11 to 3.13. Another call begins anew; or give an "
            "interpreter that has sglang by AGENTGYM_SGLANG_PYTHON"
        )


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
