"""Runs a command beside a Docker engine of its own: `python tests/docker_engine.py pytest -m docker`.

Needs root on Debian or Ubuntu; missing packages are installed with apt-get. No image registry is asked: the image is
made of this machine's static busybox and Python. Where DOCKER_HOST is set, that engine is used in its place, as it is.
The command finds DOCKER_HOST and AGENTGYM_TEST_IMAGE in its environment.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

PROGRAMS = {"/usr/sbin/dockerd": "docker.io", "/bin/busybox": "busybox-static", "/usr/bin/python3": "python3"}
IMAGE = "agentgym-test:latest"
PR_SET_PDEATHSIG = 1
START_SECONDS, STOP_SECONDS = 60.0, 30.0
WITHOUT = ("--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=overlay2")
LEFT_OUT = {"__pycache__", "test", "tests", "idlelib", "ensurepip", "lib2to3", "pydoc_data", "dist-packages"}


def main(command: Sequence[str]) -> int:
    if os.environ.get("DOCKER_HOST"):
        return subprocess.run(command).returncode
    install()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the engine is stopped then too
    with engine() as host:
        made = docker(host, "import", *_changes(), "-", IMAGE, given=image_tar())
        print(f"docker engine at {host}, image {made.strip()[:19]}", flush=True)
        return subprocess.run(command, env={**os.environ, "DOCKER_HOST": host, "AGENTGYM_TEST_IMAGE": IMAGE}).returncode


def install() -> None:
    missing = [package for program, package in PROGRAMS.items() if not os.path.exists(program)]
    if os.geteuid() != 0:
        sys.exit(
            "a Docker engine of one's own needs root; or name a running one: DOCKER_HOST=unix:///var/run/docker.sock"
        )
    if not missing:
        return
    if not shutil.which("apt-get"):
        sys.exit(f"missing: {', '.join(missing)}, and there is no apt-get; or set DOCKER_HOST to a running engine")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=quiet)
    subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], check=True, env=quiet)


@contextlib.contextmanager
def engine() -> Iterator[str]:
    """A daemon in a folder of its own; it and whatever it mounted are gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="docker-"))
    host = f"unix://{folder}/docker.sock"
    places = {"--data-root": "data", "--exec-root": "exec", "--pidfile": "docker.pid"}
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(
            ["dockerd", "--host", host, *(f"{k}={folder}/{v}" for k, v in places.items()), *WITHOUT],
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=lambda: ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM),
        )
    try:
        _until_up(daemon, host, folder / "log")
        yield host
    finally:
        _stop(daemon)
        _unmount(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _until_up(daemon: subprocess.Popen[bytes], host: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while subprocess.run(["docker", "--host", host, "version"], capture_output=True).returncode:
        if daemon.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"dockerd did not start:\n{log.read_text()[-3000:]}")
        time.sleep(0.1)


def _stop(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait()


def _unmount(folder: Path) -> None:
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in sorted((p for p in points if p.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "-l", point], capture_output=True)


def docker(host: str, *arguments: str, given: bytes | None = None) -> str:
    done = subprocess.run(["docker", "--host", host, *arguments], input=given, capture_output=True)
    if done.returncode:
        sys.exit(f"docker {' '.join(arguments)}: {done.stderr.decode()}")
    return done.stdout.decode()


def _changes() -> list[str]:
    return ["--change", "ENV PATH=/usr/bin:/bin", "--change", 'CMD ["sh"]']


def image_tar() -> bytes:
    """A root file system: every applet of busybox, and Debian's Python with the libraries that it loads."""
    library = Path(subprocess.check_output(["/usr/bin/python3", "-Ic", "import os; print(os.__file__)"], text=True))
    library = library.parent
    python = Path("/usr/bin/python3").resolve()
    modules = [p for p in sorted(library.rglob("*")) if p.is_file() and not LEFT_OUT & set(p.parts)]
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        for folder in ("usr/bin", "usr/lib", "usr/lib64", "etc", "proc", "sys", "dev", "root", "tmp", "work"):
            _add_folder(tar, folder)
        for link, target in {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64"}.items():
            _add_link(tar, link, target)
        _add(tar, "/bin/busybox", "usr/bin/busybox")
        for applet in subprocess.check_output(["/bin/busybox", "--list"], text=True).split():
            if applet != "busybox":
                _add_link(tar, f"usr/bin/{applet}", "busybox")
        _add(tar, str(python), f"usr/bin/{python.name}")
        _add_link(tar, "usr/bin/python3", python.name)
        for path in modules:
            _add(tar, str(path), str(path).lstrip("/"))
        for path in _libraries([python, *(m for m in modules if m.suffix == ".so")]):
            _add(tar, path, path.lstrip("/").removeprefix("usr/").join(("usr/", "")))
        _add_text(tar, "etc/passwd", "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/work:/bin/sh\n")
        _add_text(tar, "etc/group", "root:x:0:\nnogroup:x:65534:\n")
    return held.getvalue()


def _libraries(programs: Sequence[Path]) -> list[str]:
    told = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True).stdout
    return sorted(
        {word for line in told.splitlines() for word in line.split() if word.startswith("/") and ":" not in word}
    )


def _add(tar: tarfile.TarFile, path: str, name: str) -> None:
    entry = tar.gettarinfo(os.path.realpath(path), name)
    entry.uid = entry.gid = 0
    with open(path, "rb") as file:
        tar.addfile(entry, file)


def _add_folder(tar: tarfile.TarFile, name: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    tar.addfile(entry)


def _add_link(tar: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    tar.addfile(entry)


def _add_text(tar: tarfile.TarFile, name: str, text: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(text)
    tar.addfile(entry, io.BytesIO(text.encode()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
