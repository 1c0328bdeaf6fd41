"""The local sandbox's walls: each act is refused inside and, where it has a control, works outside."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentgym.execution import SandboxLimits, SandboxSpec
from agentgym.sandboxes.fake import FakeBackend
from agentgym.sandboxes.local import LocalBackend
from agentgym.sandboxes.local.jail import seccomp, syscalls

Run = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("local_only")


@pytest.mark.parametrize(
    "code",
    [
        "open('/etc/shadow')",
        f"import os; os.listdir({str(Path(__file__).resolve().parents[2])!r})",
        "import socket; socket.socket()",
        "import socket; socket.socket(socket.AF_UNIX)",
        "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        "import os; os.unshare(0x10000000)" if sys.version_info >= (3, 12) else "CALL('unshare', 0x10000000)",
        "CALL('mount', 0, 0, 0, 0, 0)",
        "CALL('ptrace', 16, 1, 0, 0)",
        "CALL('bpf', 0, 0, 0)",
        "CALL('keyctl', 0, 0)",
        "CALL('io_uring_setup', 1, 0)",
        "CALL('clone', 0x10000011, 0, 0, 0, 0)",
        "import os; os.setuid(0)",
        "import os; os.mknod('/tmp/d', 0o20666, os.makedev(1, 3))",
        "import os; os.chroot('/tmp')",
        "import os; os.kill(1, 9); os.kill(1, 0); open('/proc/1/mem', 'rb').read(1)",
        "import fcntl; fcntl.ioctl(0, 0x5412, b'x')",
        "open('/proc/sys/kernel/core_pattern', 'w')",
        "open('/usr/lib/x', 'w')",
        "import os; os.listdir('/home')",
        "import resource; resource.setrlimit(resource.RLIMIT_CORE, (1, 1))",
    ],
)
def test_refused(code: str, sandbox: Any, run: Run) -> None:
    helper = (
        "import ctypes, os\n"
        "def CALL(name, *args):\n"
        f"    number = {_numbers()!r}[name]\n"
        "    libc = ctypes.CDLL(None, use_errno=True)\n"
        "    if libc.syscall(number, *args) < 0: raise OSError(ctypes.get_errno(), name)\n"
    )
    assert run(sandbox.exec(helper)).ok
    refused = run(sandbox.exec(code))
    assert refused.status.value == "error"
    assert any(
        word in refused.error
        for word in ("Permission", "not permitted", "Read-only", "No such file", "not allowed", "EPERM", "[Errno 1]")
    )


def _numbers() -> dict[str, int]:
    machine = syscalls.MACHINE
    known = dict(syscalls.TABLES[machine])
    more = {
        "x86_64": {"ptrace": 101, "bpf": 321, "keyctl": 250, "io_uring_setup": 425},
        "aarch64": {"ptrace": 117, "bpf": 280, "keyctl": 219, "io_uring_setup": 425},
    }
    return known | more[machine]


def test_no_secret_of_the_trainer_is_inside(sandbox: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTGYM_TEST_SECRET", "s3cret")
    inside = run(
        sandbox.exec("import os; dict(os.environ), os.listdir('/proc/self/fd'), open('/proc/self/cmdline').read()")
    )
    assert inside.ok
    assert "s3cret" not in inside.result
    assert inside.result.count("'") < 60


def test_the_filter_of_either_machine_is_well_formed() -> None:
    for machine in ("x86_64", "aarch64"):
        program = seccomp.program(machine)
        assert 100 < len(program) < 4096
        for at, (_, yes, no, _) in enumerate(program):
            assert at + max(yes, no) < len(program)


@pytest.mark.parametrize("own_user", [False, True])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_lets_through_what_is_listed(machine: str, own_user: bool) -> None:
    """Run as the kernel would, for every number and some arguments."""
    program, table = seccomp.program(machine, own_user), syscalls.TABLES[machine]

    def decide(number: int, first: int = 0, second: int = 0, arch: int = syscalls.AUDIT_ARCH[machine]) -> int:
        data = {0: number, 4: arch, 16: first, 24: second}
        at, held = 0, 0
        while True:
            code, yes, no, value = program[at]
            if code == 0x20:
                held = data[value]
            elif code == 0x06:
                return value
            else:
                met = {0x15: held == value, 0x35: held >= value, 0x45: bool(held & value)}[code]
                at += yes if met else no
            at += 1

    refused = seccomp.ERRNO | errno.EPERM
    asked = seccomp.CONDITIONAL | (seccomp.FAKED | seccomp.OTHERS | set(seccomp.OF_ITSELF) if own_user else set())
    plain = {number for name, number in table.items() if name not in seccomp.DENIED | asked}
    others = {number for name, number in table.items() if name in asked}
    for number in set(range(600)) - others:
        assert decide(number) == (seccomp.ALLOW if number in plain else refused), number
        assert decide(number, arch=1) == seccomp.KILL
    assert decide(table["clone"], 0x11) == decide(table["ioctl"], 0, 0x5401) == seccomp.ALLOW
    assert decide(table["clone"], 0x10000011) == decide(table["ioctl"], 0, 0x5412) == refused
    assert decide(table["clone3"]) == seccomp.ERRNO | errno.ENOSYS
    assert decide(table["socketpair"], 1) == decide(table["prctl"], 15) == seccomp.ALLOW
    assert decide(table["socketpair"], 2) == decide(table["prctl"], 22) == refused
    if machine == "x86_64":
        assert decide(0x40000000) == seccomp.KILL
    if own_user:
        assert decide(table["fchmodat"]) == seccomp.ERRNO
        assert [decide(table["prlimit64"], pid) for pid in (0, 1)] == [seccomp.ALLOW, refused]


def test_nothing_is_left_when_the_host_is_killed(tmp_path: Path) -> None:
    code = (
        "import asyncio, os\n"
        "from agentgym.execution import SandboxSpec\n"
        "from agentgym.sandboxes.local import LocalBackend\n"
        "async def main():\n"
        "    backend = LocalBackend(warm=1)\n"
        "    boxes = [await backend.create(SandboxSpec()) for _ in range(3)]\n"
        "    tasks = [asyncio.create_task(b.exec('while True: pass', timeout=100)) for b in boxes]\n"
        "    await asyncio.sleep(0.2)\n"
        "    print(backend._zygote.process.pid, *(b._session._pid for b in boxes), flush=True)\n"
        "    await asyncio.sleep(100)\n"
        "asyncio.run(main())\n"
    )
    host = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert host.stdout is not None
    pids = [int(word) for word in host.stdout.readline().split()]
    if not pids:
        pytest.skip("no local sandbox on this machine")
    os.kill(host.pid, signal.SIGKILL)
    host.wait()
    deadline = time.monotonic() + 20
    while (left := [pid for pid in pids if _runs(pid)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == []


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_sessions_that_were_ready_are_not_lent_once_their_zygote_is_gone(run: Run, spec: SandboxSpec) -> None:
    async def main() -> list[str | None]:
        backend = LocalBackend(warm=3)
        first = await backend.create(spec)
        await backend._filling
        os.kill(backend._zygote.process.pid, signal.SIGKILL)
        backend._zygote.process.wait()
        await backend._fork(spec.limits)  # as a filling that goes on: another zygote is there again
        await first.exec("1")  # told, and lost
        boxes = [first, *[await backend.create(spec) for _ in range(3)]]
        found = [(await box.exec("1 + 1")).result for box in boxes]
        await backend.aclose()
        return found

    assert run(main()) == ["2"] * 4


def test_a_zygote_that_is_killed_is_replaced(backend: Any, sandbox: Any, run: Run) -> None:
    os.kill(backend._zygote.process.pid, signal.SIGKILL)
    backend._zygote.process.wait()
    deadline = time.monotonic() + 20
    while _runs(sandbox._session._pid) and time.monotonic() < deadline:
        time.sleep(0.001)
    lost = run(sandbox.exec("1"))
    assert lost.status.value == "infra_error"
    assert run(sandbox.exec("1 + 1")).result == "2"
    run(sandbox.close())


def test_without_control_groups_forks_are_not_taken_for_memory(
    spec: SandboxSpec, run: Run, monkeypatch: pytest.MonkeyPatch, backend: Any
) -> None:
    monkeypatch.setattr("agentgym.sandboxes.local.cgroups.Groups.open", classmethod(lambda _: None))
    watched = LocalBackend(warm=0)
    limits = SandboxLimits(memory=64 << 20, processes=16)
    box = run(watched.create(SandboxSpec(limits)))
    forks = "import os, time\na = bytearray(b'x') * (20 << 20)\nfor _ in range(10):\n  if os.fork() == 0:\n    {}\n"
    ended = "    time.sleep(0.5); os._exit(0)\nfor _ in range(10): os.wait()"
    assert run(box.exec(forks.format("pass") + ended)).ok
    assert run(box.exec(forks.format("b = bytearray(b'x') * (20 << 20)") + ended)).status.value == "oom"
    run(box.write_file("small", b"x"))
    assert run(box.read_file("small", 200 << 20)) == b"x"  # more than its address space
    run(watched.aclose())


@pytest.mark.parametrize("limits", [{"memory": 0}, {"timeout": -1}, {"processes": True}, {"disk": float("inf")}])
def test_limits_that_are_none(limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"sandbox limit {next(iter(limits))} = "):
        SandboxLimits(**limits)


def test_the_fake_answers_as_told(spec: SandboxSpec, run: Run) -> None:
    fake = run(FakeBackend({"1+1": "2\n", "*": lambda code: code.upper()}).create(spec))
    assert run(fake.exec("1+1")).stdout == "2\n"
    assert run(fake.shell("ls")).stdout == "LS"
    assert fake.calls == [("exec", "1+1"), ("shell", "ls")]


def test_a_cancelled_creation_does_not_answer_for_the_next(backend: Any, spec: SandboxSpec, run: Run) -> None:
    async def cut(delay: float) -> None:
        making = asyncio.create_task(backend.create(SandboxSpec(SandboxLimits(memory=64 << 20))))
        await asyncio.sleep(delay)
        making.cancel()
        for made in await asyncio.gather(making, return_exceptions=True):
            if not isinstance(made, BaseException):
                await made.close()

    for delay in (0.0, 0.001, 0.003, 0.006):
        run(cut(delay))
    one, two = run(backend.create(spec)), run(backend.create(spec))
    assert [run(one.exec("1")).result, run(two.exec("2")).result] == ["1", "2"]
    assert run(one.exec("while True: pass", timeout=0.2)).status.value == "timeout"
    assert run(two.exec("3")).result == "3"
    run(one.close())
    run(two.close())
