"""The docker backend on a real engine: its walls, ends from outside, leftovers, images."""

from __future__ import annotations

import ast
import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentgym.errors import SandboxFault, SandboxUnavailable
from agentgym.execution import ExecStatus, SandboxLimits, SandboxSpec
from agentgym.sandboxes.docker import DockerBackend
from agentgym.sandboxes.docker.containers import OWN_MEMORY
from agentgym.sandboxes.docker.owners import LABEL, labels
from tests.sandboxes.conftest import IMAGE

Run = Callable[..., Any]
pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("docker_only")]


def container_of(sandbox: Any) -> str:
    return str(sandbox._session.name)


def test_the_engine_holds_the_walls(sandbox: Any, client: Any, spec: SandboxSpec) -> None:
    told = client.inspect_container(container_of(sandbox))
    host, config = told["HostConfig"], told["Config"]
    assert (host["NetworkMode"], host["IpcMode"], host["Privileged"]) == ("none", "none", False)
    assert (host["CapDrop"], host["CapAdd"], host["ReadonlyRootfs"]) == (["ALL"], None, True)
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Memory"] == host["MemorySwap"] == spec.limits.memory + OWN_MEMORY
    assert (host["PidsLimit"], host["CpuQuota"] / host["CpuPeriod"]) == (spec.limits.processes + 2, 1)
    assert {"core": 0, "fsize": spec.limits.disk, "nofile": 256}.items() <= {
        bound["Name"]: bound["Hard"] for bound in host["Ulimits"]
    }.items()
    assert set(host["Tmpfs"]) == {"/work", "/tmp", "/dev/shm"}
    assert not host["Binds"]
    assert not told["Mounts"]
    assert config["User"] == "65534:65534"
    assert config["Labels"][LABEL] == "1"


CALL = (
    "import ctypes, os; libc = ctypes.CDLL(None, use_errno=True); WHY = lambda: os.strerror(ctypes.get_errno()); "
    "CALL = lambda *a: libc.syscall(*a) >= 0 or exec('raise OSError(WHY())')"
)


@pytest.mark.parametrize(
    "code",
    [
        "open('/etc/shadow')",
        "open('/usr/x', 'w')",
        "open('/etc/hosts', 'a')",
        "import socket; socket.create_connection(('169.254.169.254', 80), 2)",
        "import socket; socket.socket(socket.AF_UNIX).connect('/var/run/docker.sock')",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
        "import socket; socket.socket(40, socket.SOCK_STREAM)",
        f"{CALL}; CALL(425, 4, ctypes.create_string_buffer(200))",
        "import os; os.setuid(0)",
        "import os; os.mknod('/tmp/d', 0o20666, os.makedev(1, 3))",
        "import os; os.chroot('/tmp')",
        "open('/proc/1/mem', 'rb').read(1)",
        "import os; os.readlink('/proc/1/fd/0')",
        "open('/proc/sys/kernel/core_pattern', 'w')",
        "open('/sys/fs/cgroup/memory/memory.limit_in_bytes', 'w')",
        "import resource; resource.setrlimit(resource.RLIMIT_CORE, (1, 1))",
    ],
)
def test_refused(code: str, sandbox: Any, run: Run) -> None:
    refused = run(sandbox.exec(code))
    assert refused.status is ExecStatus.error
    assert any(
        w in refused.error
        for w in ("Permission", "not permitted", "Read-only", "No such", "not allowed", "unreachable")
    )


def test_sockets_of_its_own_are_the_codes_to_use(sandbox: Any, run: Run) -> None:
    """Tests of a task may start a server."""
    code = (
        "import socket\nserver = socket.create_server(('127.0.0.1', 0))\nsocket.create_connection(server.getsockname())"
    )
    assert run(sandbox.exec(f"{code}.send(b'x')")).result == "1"


def test_the_first_process_cannot_be_ended_from_inside(sandbox: Any, run: Run) -> None:
    kill = "import os, signal\nfor s in (9, 19, 15, 2, 1):\n    os.kill(1, s)\nos.getppid()"
    assert run(sandbox.exec(kill)).result == "1"
    assert run(sandbox.exec("while True: pass", timeout=0.2)).status is ExecStatus.timeout


def test_no_secret_of_the_trainer_is_inside(sandbox: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTGYM_TEST_SECRET", "s3cret")
    inside = run(sandbox.exec("import os, sys; sorted(os.environ), [n for n in sys.modules if 'agentgym' in n]"))
    names, modules = ast.literal_eval(inside.result)
    assert {"HOME", "PATH", "TMPDIR"} <= set(names)
    assert not set(names) & {"AGENTGYM_TEST_SECRET", "DOCKER_HOST", "PYTEST_CURRENT_TEST"}
    assert modules == []


@pytest.mark.parametrize(
    "forged",
    [
        "b'\\xff' * 100",
        "b'\\x02\\0\\0\\0\\0\\0\\0\\0{}'",
        "b'\\xff\\xff\\x0f\\0\\0\\0\\0\\x10' + b'x' * 100000",
        "b'\\x02\\0\\0\\0\\0\\0\\0\\0[]'",
    ],
)
def test_forged_answers_stay_with_who_forged_them(forged: str, sandbox: Any, backend: Any, spec: Any, run: Run) -> None:
    told = run(sandbox.exec(f"import os\nos.write(3, {forged})\nimport time; time.sleep(0.3)", timeout=1.5))
    assert told.status in ExecStatus
    other = run(backend.create(spec))
    assert run(other.exec("'mine'")).result == "'mine'"
    run(other.close())
    assert [run(sandbox.exec("1 + 1", timeout=5)) for _ in range(3)][-1].result == "2"


def test_a_container_killed_from_outside_is_no_fault_of_the_code(sandbox: Any, client: Any, run: Run) -> None:
    async def kill() -> Any:
        call = asyncio.create_task(sandbox.exec("import time; time.sleep(60)"))
        await asyncio.sleep(0.3)
        await asyncio.to_thread(client.remove_container, container_of(sandbox), force=True)
        return await call

    lost = run(kill())
    assert (lost.status, lost.state_lost) == (ExecStatus.infra_error, True)
    assert run(sandbox.exec("1 + 1")).result == "2"


def test_an_engine_that_goes_away_is_no_fault_of_the_code(spec: SandboxSpec, tmp_path: Path, run: Run) -> None:
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not host.startswith("unix://"):
        pytest.skip("needs an engine at unix://")
    links: list[asyncio.StreamWriter] = []

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while part := await source.read(1 << 16):
            target.write(part)
            await target.drain()
        target.write_eof()

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_engine, out = await asyncio.open_unix_connection(host.removeprefix("unix://"))
        links.extend((writer, out))
        await asyncio.gather(copy(reader, out), copy(to_engine, writer), return_exceptions=True)

    async def main() -> Any:
        between = await asyncio.start_unix_server(join, tmp_path / "engine.sock")
        backend = DockerBackend(IMAGE, warm=0, host=f"unix://{tmp_path}/engine.sock")
        sandbox = await backend.create(spec)
        call = asyncio.create_task(sandbox.exec("import time; time.sleep(60)"))
        await asyncio.sleep(0.3)
        between.close()
        (tmp_path / "engine.sock").unlink()
        for link in links:
            link.transport.abort()
        lost = await call
        with pytest.raises(SandboxUnavailable, match="no Docker engine answers"):
            await sandbox.exec("1")
        await sandbox.close()
        await backend.aclose()
        return lost

    lost = run(main())
    assert (lost.status, lost.state_lost) == (ExecStatus.infra_error, True)
    assert "the Docker engine does not answer" in lost.error


def test_a_sandbox_closed_in_the_middle_of_a_call(backend: Any, spec: SandboxSpec, client: Any, run: Run) -> None:
    async def close() -> tuple[str, Any]:
        sandbox = await backend.create(spec)
        name = container_of(sandbox)
        call = asyncio.create_task(sandbox.exec("import time; time.sleep(60)"))
        await asyncio.sleep(0.2)
        await sandbox.close()
        return name, (await asyncio.gather(call, return_exceptions=True))[0]

    name, told = run(close())
    assert isinstance(told, SandboxFault)
    assert gone(client, [name]) == []


def gone(client: Any, names: list[str], seconds: float = 20.0) -> list[str]:
    """Those that are still there after a while."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        names = [name for name in names if client.containers(all=True, filters={"id": name})]
        if not names:
            break
        time.sleep(0.05)
    return names


def test_used_containers_are_removed_and_nothing_is_left_after_the_end(
    client: Any, spec: SandboxSpec, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    backend = DockerBackend(IMAGE, warm=1)
    start = backend._start

    def noted(plan: Any) -> Any:
        session = start(plan)
        started.append(session.name)
        return session

    monkeypatch.setattr(backend, "_start", noted)

    async def main() -> list[str]:
        used = []
        for _ in range(2):
            sandbox = await backend.create(spec)  # the first is forgotten
            used.append(container_of(sandbox))
            await sandbox.exec("while True: pass", timeout=0.1)
            await sandbox.exec("1")
            used.append(container_of(sandbox))
        making = asyncio.create_task(backend.create(SandboxSpec()))
        await asyncio.sleep(0.1)
        making.cancel()
        await asyncio.gather(making, return_exceptions=True)
        await backend.aclose()
        await backend.aclose()
        with pytest.raises(SandboxFault):
            await sandbox.exec("1")
        return used

    used = run(main())
    assert len(set(used)) == 4
    assert set(used) < set(started)
    assert gone(client, started, 0.1) == []


def test_what_a_killed_owner_left_is_removed_by_the_next(client: Any, spec: SandboxSpec, run: Run) -> None:
    code = (
        "import asyncio, sys\n"
        "from agentgym.execution import SandboxSpec\n"
        "from agentgym.sandboxes.docker import DockerBackend\n"
        "async def main():\n"
        "    backend = DockerBackend(sys.argv[1], warm=0)\n"
        "    box = await backend.create(SandboxSpec())\n"
        "    task = asyncio.create_task(box.exec('while True: pass', timeout=100))\n"
        "    await asyncio.sleep(0.2)\n"
        "    print(box._session.name, flush=True)\n"
        "    await asyncio.sleep(100)\n"
        "asyncio.run(main())\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", code, IMAGE], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    name = owner.stdout.readline().strip()
    assert client.inspect_container(name)["State"]["Running"]
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    deadline = time.monotonic() + 20
    while client.inspect_container(name)["State"]["Running"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not client.inspect_container(name)["State"]["Running"]  # its stdin ended, and so did it
    living = client.create_container(IMAGE, command=["none"], labels=labels())["Id"]

    async def following() -> None:
        backend = DockerBackend(IMAGE, warm=0)
        await (await backend.create(spec)).close()
        await backend.aclose()

    run(following())
    assert gone(client, [name], 0.1) == []
    assert gone(client, [living], 0.1) == [living]  # this process lives
    client.remove_container(living)


def test_without_aclose_the_process_ends_and_leaves_nothing(client: Any) -> None:
    code = (
        "import asyncio, sys\n"
        "from agentgym.execution import SandboxSpec\n"
        "from agentgym.sandboxes.docker import DockerBackend\n"
        "backend = DockerBackend(sys.argv[1], warm=1)\n"
        "box = asyncio.run(backend.create(SandboxSpec()))\n"
        "import os; print(os.getpid(), box._session.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, IMAGE], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    pid, name = done.stdout.split()
    assert gone(client, [name], 0.1) == []
    assert client.containers(all=True, filters={"label": f"{LABEL}.pid={pid}"}) == []


def test_users_and_working_directories(backend: Any, spec: SandboxSpec, run: Run) -> None:
    async def told(**more: Any) -> str:
        async with await backend.create(SandboxSpec(spec.limits, setup="echo 1 > made", **more)) as box:
            return str((await box.shell("id -u; pwd; cat made")).stdout)

    assert run(told(user="root")) == "0\n/work\n1\n"
    assert run(told(user="1000:1000", workdir="/tmp/a/b")) == "1000\n/tmp/a/b\n1\n"
    assert run(told(workdir="/somewhere/else")) == "65534\n/somewhere/else\n1\n"
    with pytest.raises(SandboxFault, match="nosuchuser"):
        run(told(user="nosuchuser"))


def test_memory_held_by_files_is_counted(backend: Any, run: Run) -> None:
    limits = SandboxLimits(memory=64 << 20, disk=256 << 20, timeout=20)
    box = run(backend.create(SandboxSpec(limits)))
    told = run(box.exec("f = open('f', 'wb')\nfor _ in range(200): f.write(bytes(1 << 20))"))
    assert (told.status, told.state_lost) == (ExecStatus.oom, True)
    run(box.close())


def test_large_files_pass(backend: Any, run: Run) -> None:
    box = run(backend.create(SandboxSpec(SandboxLimits(disk=64 << 20, memory=256 << 20))))
    data = os.urandom(20 << 20)
    run(box.write_file("f", data))
    assert run(box.read_file("f", 32 << 20)) == data
    run(box.close())


def test_many_at_once(backend: Any, spec: SandboxSpec, run: Run) -> None:
    async def one(i: int) -> str:
        async with await backend.create(spec) as box:
            return str((await box.exec(f"{i} * 2")).result)

    async def main() -> list[str]:
        return list(await asyncio.gather(*(one(i) for i in range(8))))

    assert run(main()) == [str(i * 2) for i in range(8)]
