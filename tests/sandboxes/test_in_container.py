"""Inside a container with an engine's default options: namespaces fail closed, Landlock holds when it is asked for."""

from __future__ import annotations

import importlib
import os
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.docker
ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import asyncio
from agentgym.errors import SandboxUnavailable
from agentgym.execution import SandboxSpec
from agentgym.sandboxes.local import LocalBackend

async def main():
    closed = LocalBackend()
    try:
        await closed.create(SandboxSpec())
        print("namespaces: made")
    except SandboxUnavailable as e:
        print("namespaces: refused", "landlock" in str(e), "seccomp=unconfined" in str(e))
    backend = LocalBackend(isolation="landlock")
    async with await backend.create(SandboxSpec()) as box:
        print("landlock:", backend.capabilities.isolation, (await box.exec("x = 6\\nx * 7")).result)
        for code in ("open('/etc/shadow')", "import socket; socket.socket()", "import os; os.listdir('/root')",
                     "open('/usr/x', 'w')", "import os; os.kill(os.getppid(), 9); open('/proc/1/environ').read()"):
            print("act:", (await box.exec(code)).status.value)
        print("deadline:", (await box.exec("while True: pass", timeout=0.5)).status.value)
        print("after:", (await box.exec("1 + 1")).result)
    await backend.aclose()

asyncio.run(main())
"""


def test_default_container() -> None:
    host, image = os.environ.get("DOCKER_HOST"), os.environ.get("AGENTGYM_TEST_IMAGE")
    if not host or not image:
        pytest.skip("needs a Docker engine and an image with python3 (make test-docker)")
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the image's Python is 3.11 and uses this one's packages")
    docker: Any = importlib.import_module("docker")
    packages = sysconfig.get_paths()["purelib"]
    binds = {str(ROOT): {"bind": "/src", "mode": "ro"}, packages: {"bind": "/packages", "mode": "ro"}}
    binds["/usr/lib"] = {"bind": "/usr/lib", "mode": "ro"}
    client = docker.DockerClient(host)
    said = client.containers.run(
        image,
        ["python3", "-c", SCRIPT],
        network_mode="none",
        volumes=binds,
        environment={"PYTHONPATH": "/src:/packages"},
        remove=True,
        stderr=True,
    ).decode()
    lines = [line for line in said.splitlines() if ":" in line]
    assert lines == [
        "namespaces: refused True True",
        "landlock: landlock 42",
        *["act: error"] * 5,
        "deadline: timeout",
        "after: 2",
    ], said
