"""What the local sandbox without namespaces is made of, and the whole of it for an ordinary user."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentgym.execution import SandboxSpec
from agentgym.sandboxes.local.jail import landlock, seccomp, syscalls
from agentgym.sandboxes.local.watchdog import occupied
from tests.sandboxes.processes import gone

Run = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]


def test_no_landlock_is_told(spec: SandboxSpec, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(syscalls.NUMBERS, "landlock_create_ruleset", 10_000)
    with pytest.raises(OSError, match="the kernel has no Landlock"):
        landlock.Landlock([], []).build()
    monkeypatch.setattr(landlock, "abi", lambda: 5)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(OSError, match=r"Landlock is of version 5 here.* takes version 6 \(Linux 6\.12\), or root"):
        landlock.Landlock([], []).build()


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_for_the_hosts_own_user(machine: str) -> None:
    program = seccomp.program(machine, own_user=True)
    table = syscalls.TABLES[machine]
    for at, (_, yes, no, _) in enumerate(program):
        assert at + max(yes, no) < len(program)
    for name in sorted(seccomp.FAKED & set(table)):
        at = next(i for i, op in enumerate(program) if op == (0x15, 0, 1, table[name]))
        assert program[at + 1] == (0x06, 0, 0, seccomp.ERRNO)
    assert table["setpriority"] not in [value for code, _, _, value in program if code == 0x15]


def test_occupied_stops_where_it_is_enough(tmp_path: Path) -> None:
    for i in range(10):
        (tmp_path / f"f{i}").write_bytes(b"x" * 10_000)
    assert occupied(str(tmp_path), 1 << 30) >= 100_000
    assert 20_000 < occupied(str(tmp_path), 20_000) < 60_000


def _for_all() -> str | None:
    """An interpreter that everybody may start, of the version that this one has."""
    version = "import sys; print(sys.version_info[:2])"
    for found in (
        sys.executable,
        *(shutil.which(f"python3.{i}", path="/usr/local/bin:/usr/bin") for i in (11, 12, 13)),
    ):
        above = [*Path(found).resolve().parents] if found else []
        if found and all(folder.stat().st_mode & 1 for folder in above):
            said = subprocess.run([found, "-c", version], capture_output=True, text=True)
            if said.stdout.strip() == str(sys.version_info[:2]):
                return found
    return None


@pytest.mark.parametrize("options", [{}, {"isolation": "landlock"}, {"allow_unsafe": True}])
def test_an_ordinary_user(options: dict[str, Any]) -> None:
    """The same, from a process that has given up root for `nobody`."""
    if os.geteuid() != 0:
        pytest.skip("the other tests run as an ordinary user already")
    python = _for_all()
    packages = [path for path in sys.path if path.endswith("site-packages")]
    if python is None or not all(folder.stat().st_mode & 1 for path in packages for folder in Path(path).parents):
        pytest.skip("no interpreter and packages that an ordinary user may read")
    folder = tempfile.mkdtemp()
    try:
        os.chmod(folder, 0o755)
        shutil.copytree(ROOT / "agentgym", f"{folder}/agentgym", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(Path(__file__).parent / "ordinary_user.py", folder)
        os.mkdir(f"{folder}/tmp")  # its own: what is left in it is this run's
        os.chown(f"{folder}/tmp", 65534, 65534)
        done = subprocess.run(
            [python, "-B", f"{folder}/ordinary_user.py", json.dumps(options)],
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": "/nonexistent",
                "TMPDIR": f"{folder}/tmp",
                "PYTHONPATH": ":".join([folder, *packages]),
            },
            user=65534,
            group=65534,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            text=True,
            timeout=100,
        )
    finally:
        shutil.rmtree(folder)
    if "unavailable: " in done.stdout:
        pytest.skip(done.stdout)
    assert done.returncode == 0, done.stderr + done.stdout
    assert json.loads(done.stdout) == []
    assert gone("12348.5")
    assert gone(f"{folder}/agentgym/sandboxes/local")  # an argument of every process of the jail's, the bomb's too
