"""The Python that has sglang: it is not ours, for its torch and ours need not be the same."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from agentgym.errors import ConfigError

VARIABLE = "AGENTGYM_SGLANG_PYTHON"
HOW = (
    "SGLang runs in an environment of its own. On a GPU: python -m venv DIR && DIR/bin/pip install 'sglang>=0.5.17', "
    "then --engine.python=DIR/bin/python. On a CPU: `python requirements/sglang_cpu.py` builds one in the cache "
    "folder, where it is found. A server that runs already is given by --engine.urls"
)


def find_python(given: str = "") -> str:
    """The interpreter to start servers with: the one given, else AGENTGYM_SGLANG_PYTHON's, else this one, else that of
    the newest environment in the cache folder. Raises `ConfigError` that says how to get one."""
    if given:
        return _checked(given, "engine.python")
    if os.environ.get(VARIABLE):
        return _checked(os.environ[VARIABLE], VARIABLE)
    if importlib.util.find_spec("sglang") is not None:
        return sys.executable
    if cached := cached_pythons():
        return str(cached[-1])
    raise ConfigError(f"engine.kind = 'sglang': no Python here has sglang. {HOW}")


def cached_pythons() -> list[Path]:
    """Those of whole environments in the user's cache folder, the newest last."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agentgym"
    stamps = sorted(folder.glob("sglang-cpu-*/.complete"), key=lambda path: path.stat().st_mtime)
    return [stamp.parent / "bin" / "python" for stamp in stamps]


def _checked(python: str, where: str) -> str:
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('sglang') is None)"
    try:
        found = subprocess.run([python, "-c", look], capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired) as e:
        raise ConfigError(f"{where} = {python!r}: cannot be run: {e}") from None
    if not found:
        raise ConfigError(f"{where} = {python!r}: that Python has no sglang. {HOW}")
    return python
