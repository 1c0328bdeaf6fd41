"""The local sandbox without namespaces: what every sandbox promises, what walls remain, and that they are proven."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentgym.errors import ConfigError, SandboxUnavailable
from agentgym.execution import ExecStatus, SandboxSpec
from agentgym.sandboxes import make_backend
from agentgym.sandboxes.local import LocalBackend
from agentgym.sandboxes.local.jail import keeper, landlock
from agentgym.sandboxes.local.zygote import Zygote
from tests.sandboxes.processes import gone, running, there

Run = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]
SLEEPER = """
import os
for _ in range(3):
  if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: os.execv('/bin/sleep', ['sleep', '{mark}'])
    os._exit(0)
"""
OPTIONS = {"landlock": "isolation='landlock'", "none": "allow_unsafe=True"}


def _beside(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"tiers_{name}", Path(__file__).parent / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


conformance = _beside("test_conformance")
test_variables_and_files_live_on = conformance.test_variables_and_files_live_on
test_what_the_code_does_wrong_is_a_result = conformance.test_what_the_code_does_wrong_is_a_result
test_output_is_capped_and_says_so = conformance.test_output_is_capped_and_says_so
test_a_deadline_ends_everything = conformance.test_a_deadline_ends_everything_and_the_next_call_begins_afresh
test_memory_is_limited_over_all_processes = conformance.test_memory_is_limited_over_all_processes
test_its_own_end_is_told = conformance.test_its_own_end_is_told
test_a_child_that_comes_back_does_not_answer = conformance.test_a_child_that_comes_back_does_not_answer
test_a_spec_is_furnished_again_after_a_loss = conformance.test_a_spec_is_furnished_again_after_a_loss
test_closing = conformance.test_closing
test_a_cancelled_call_leaves_a_usable_sandbox = conformance.test_a_cancelled_call_leaves_a_usable_sandbox
test_a_terminal_lives_on = conformance.test_a_terminal_lives_on
test_a_snapshot_brings_files_back = conformance.test_a_snapshot_brings_files_back
test_too_much_and_no_text = conformance.test_too_much_and_no_text


@pytest.fixture(scope="module", params=["landlock", "none"])
def backend(request: pytest.FixtureRequest, run: Run) -> Iterator[LocalBackend]:
    made = (
        LocalBackend(warm=1, allow_unsafe=True)
        if request.param == "none"
        else LocalBackend(warm=1, isolation="landlock")
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            run(run(made.create(SandboxSpec())).close())
        except SandboxUnavailable as e:
            pytest.skip(f"not on this machine: {e}")
        yield made
    zygote = made._zygote.process
    assert zygote is not None
    run(made.aclose())
    assert not Path(f"/proc/{zygote.pid}").exists()


@pytest.fixture
def walled(backend: LocalBackend) -> LocalBackend:
    if backend.capabilities.isolation == "none":
        pytest.skip("there are no walls")
    return backend


@pytest.fixture
def sandbox(backend: LocalBackend, spec: SandboxSpec, run: Run) -> Iterator[Any]:
    made = run(backend.create(spec))
    yield made
    run(made.close())


def test_processes_that_ran_away_are_found(backend: LocalBackend, spec: SandboxSpec, run: Run) -> None:
    one, two = run(backend.create(spec)), run(backend.create(spec))
    run(one.exec(SLEEPER.format(mark="12345.25")))
    run(two.exec(SLEEPER.format(mark="12345.75")))
    assert there("12345.25")
    assert there("12345.75")
    run(one.close())
    assert gone("12345.25")
    assert len(running("12345.75")) == 3
    run(two.restore(run(two.snapshot())))  # an interpreter that begins afresh
    run(two.close())
    assert gone("12345.75")


def test_a_fork_bomb_ends(backend: LocalBackend, spec: SandboxSpec, run: Run) -> None:
    sandbox = run(backend.create(spec))
    bomb = "import os\nwhile True:\n  try:\n    os.fork()\n  except OSError: pass\n"
    ended = run(sandbox.exec(bomb, timeout=1.0))
    assert ended.status in (ExecStatus.timeout, ExecStatus.killed, ExecStatus.oom)
    assert run(sandbox.exec("1 + 1")).result == "2"
    run(sandbox.close())


def test_an_init_that_was_killed_leaves_nothing(backend: LocalBackend, spec: SandboxSpec, run: Run) -> None:
    sandbox = run(backend.create(spec))
    run(sandbox.exec(SLEEPER.format(mark="12346.5")))
    assert there("12346.5")
    os.kill(sandbox._session._pid, signal.SIGKILL)
    assert gone("12346.5")
    run(sandbox.close())


@pytest.mark.parametrize("tier", ["landlock", "none"])
def test_nothing_is_left_when_the_host_is_killed(tier: str, backend: LocalBackend) -> None:
    if backend.capabilities.isolation != tier:
        pytest.skip("the other one")
    code = (
        "import asyncio\n"
        "from agentgym.execution import SandboxSpec\n"
        "from agentgym.sandboxes.local import LocalBackend\n"
        "async def main():\n"
        f"    backend = LocalBackend(warm=0, {OPTIONS[tier]})\n"
        "    box = await backend.create(SandboxSpec())\n"
        f"    await box.exec({SLEEPER.format(mark='12347.5')!r})\n"
        "    print(box._session._folder, flush=True)\n"
        "    await box.exec('while True: pass', timeout=100)\n"
        "asyncio.run(main())\n"
    )
    host = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, text=True)
    assert host.stdout is not None
    folder = host.stdout.readline().strip()
    assert os.path.isdir(folder)
    assert there("12347.5")
    host.kill()
    host.wait()
    assert gone("12347.5")
    deadline = time.monotonic() + 20
    while os.path.exists(folder) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not os.path.exists(folder)


def test_the_disk_is_looked_after(backend: LocalBackend, spec: SandboxSpec, run: Run) -> None:
    sandbox = run(backend.create(spec))
    large = run(sandbox.exec("open('f', 'wb').write(b'x' * (9 << 20))"))
    assert "File too large" in large.error
    run(sandbox.exec("import os; os.unlink('f')"))
    deep = [
        "import os\nfor i in range(100_000): os.mkdir('d'); os.chdir('d')"
    ]  # bare it is much deeper when it is seen
    for code in (
        "for i in range(100): open(f'f{i}', 'wb').write(b'x' * (1 << 20))",
        "for i in range(100_000): open(f'e{i}', 'w').close()",
        *(deep if backend.capabilities.isolation == "landlock" else []),
    ):
        full = run(sandbox.exec(code))
        assert (full.status, full.state_lost) == (ExecStatus.killed, True)
        assert "No space left" in full.error
    run(sandbox.exec("import os; os.mkdir('closed', 0); os.makedirs('a/b'); os.symlink('/usr', 'a/link')"))
    run(sandbox.exec("for i in range(300): os.mkdir('e'); os.chdir('e')"))
    folder = sandbox._session._folder
    run(sandbox.close())
    assert not os.path.exists(folder)


END_AT_ONCE = """
import os, signal, subprocess
from agentgym.sandboxes.local.jail import keeper
child = subprocess.Popen(["/bin/sleep", "60"])
keeper.strike = None  # among hundreds that fork it would take too long
keeper.end_below(lambda: (child.kill(), child.wait()))
print(child.returncode)
"""


def test_what_can_be_ended_at_once_is_not_counted_first() -> None:
    done = subprocess.run([sys.executable, "-c", END_AT_ONCE], capture_output=True, text=True, timeout=20)
    assert (done.stdout, done.stderr) == ("-9\n", "")


FENCED = """
import os, subprocess
from agentgym.sandboxes.local.jail import landlock
other = subprocess.Popen(["/bin/sleep", "60"])
if (init := os.fork()) == 0:
    landlock.fence()
    below = subprocess.Popen(["/bin/sleep", "60"])
    os.kill(-1, 9)
    print(below.wait(), flush=True)
    os._exit(0)
os.waitpid(init, 0)
print(other.poll())
"""


def test_a_fenced_init_signals_only_what_it_started() -> None:
    """In a pid namespace of its own: did the fence not hold, it would end all that the user runs."""
    try:
        version = landlock.abi()
    except OSError:
        pytest.skip("the kernel has no Landlock")
    apart = ["unshare", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c"]
    if version < landlock.ABI_OF_SCOPES or subprocess.run([*apart, ""], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("Landlock does not scope signals here, or there are no pid namespaces")
    done = subprocess.run([*apart, FENCED], capture_output=True, text=True, timeout=20)
    assert (done.stdout, done.stderr) == ("-9\nNone\n", "")


def test_removal_touches_nothing_above_or_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir(mode=0o751)
    inside = tmp_path / "box" / "in"
    inside.mkdir(parents=True)
    (inside / "link").symlink_to(tmp_path / "other")
    (inside / "closed").mkdir(mode=0)
    inside.chmod(0o500)
    tmp_path.chmod(0o755)
    for _ in range(2):  # also where there is nothing any more
        keeper.remove(str(tmp_path / "box"))
        assert not (tmp_path / "box").exists()
        assert [oct(path.stat().st_mode & 0o777) for path in (tmp_path, tmp_path / "other")] == ["0o755", "0o751"]


def test_paths_of_its_own(sandbox: Any, backend: LocalBackend, spec: SandboxSpec, run: Run) -> None:
    run(sandbox.write_file("/tmp/a", b"1"))
    run(sandbox.write_file("/work/b", b"2"))
    got = "import os; open(os.environ['TMPDIR'] + '/a').read(), open('b').read()"
    assert run(sandbox.exec(got)).result == "('1', '2')"
    assert run(sandbox.read_file(run(sandbox.exec("import os; os.path.abspath('b')")).result.strip("'"))) == b"2"
    assert not os.path.exists("/work/b")
    inside = run(backend.create(SandboxSpec(spec.limits, files={"a": b"1"}, workdir="/work/in", setup="pwd > b")))
    assert run(inside.exec("open('a').read(), open('b').read().endswith('/work/in\\n')")).result == "('1', True)"
    run(inside.close())


def test_unsafe_has_to_be_asked_for_and_warns_each_time(spec: SandboxSpec, run: Run) -> None:
    backend = make_backend("local", warm=0, allow_unsafe=True)
    assert backend.capabilities.isolation == "none"
    for _ in range(2):
        with pytest.warns(UserWarning, match="this sandbox has no walls"):
            run(run(backend.create(spec)).close())
    run(backend.aclose())
    with pytest.raises(ConfigError, match="must be 'namespaces' or 'landlock'"):
        make_backend("local", isolation="chroot")
    with pytest.raises(ConfigError, match="not both"):
        make_backend("local", isolation="landlock", allow_unsafe=True)


# what is refused behind Landlock; each with what it does without walls
REFUSED = [
    "open('/etc/shadow')",
    "open('/etc/passwd')",
    "open('/proc/self/status')",
    "open(HOST)",
    "open(HOST, 'a')",
    "import os; os.listdir('/')",
    "import os; os.listdir(os.path.dirname(HOST))",
    "import os; os.unlink(HOST)",
    "import os; os.rename(HOST, 'mine')",
    "import os; os.link(HOST, 'mine')",
    "import os; os.truncate(HOST, 0)",
    "import os; os.kill(PID, 0)",
    "import os; os.kill(PID, 19)",
    "import resource; resource.prlimit(PID, resource.RLIMIT_CPU)",
    "import os; os.sched_setaffinity(PID, {0})",
    "import os; os.setpriority(os.PRIO_PROCESS, PID, 19)",
    "import os; open(f'/proc/{PID}/environ', 'rb').read()",
    "import os; open(f'/proc/{PID}/mem', 'rb').read(1)",
    "import socket; socket.socket()",
    "import os; os.open('/dev/shm/x', os.O_CREAT | os.O_RDWR)",
    "import os; os.setuid(0)",
    "import os; os.chroot('.')",
]


@pytest.mark.parametrize("code", REFUSED)
def test_refused(code: str, walled: LocalBackend, spec: SandboxSpec, run: Run) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o777)  # so that it is a wall that refuses, not a mode
        host = folder / "of the host's"
        host.write_text("secret")
        host.chmod(0o666)
        with subprocess.Popen(["/bin/sleep", "60"]) as other:
            sandbox = run(walled.create(spec))
            told = run(sandbox.exec(f"HOST, PID = {str(host)!r}, {other.pid}\n{code}"))
            kept = os.waitpid(other.pid, os.WNOHANG | os.WUNTRACED) == (0, 0)  # neither ended nor stopped
            other.kill()
        assert kept
        assert told.status is ExecStatus.error
        assert any(word in told.error for word in ("PermissionError", "ProcessLookupError", "cross-device link"))
        assert host.read_text() == "secret"
        run(sandbox.close())
    finally:
        shutil.rmtree(folder)


def test_modes_of_the_hosts_files_stay(walled: LocalBackend, spec: SandboxSpec, run: Run, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("")
    mine.chmod(0o640)
    before = mine.stat()
    sandbox = run(walled.create(spec))
    for act in ("os.chmod(P, 0o777)", "os.utime(P, (0, 0))", "os.chown(P, 1, 1)", "os.chmod(os.open(P, os.O_PATH), 0)"):
        run(sandbox.exec(f"import os; P = {str(mine)!r}; {act}"))
    after = mine.stat()
    assert (before.st_mode, before.st_mtime, before.st_uid) == (after.st_mode, after.st_mtime, after.st_uid)
    run(sandbox.close())


def test_sessions_are_closed_to_each_other(walled: LocalBackend, spec: SandboxSpec, run: Run) -> None:
    one, two = run(walled.create(spec)), run(walled.create(spec))
    run(one.exec("x = 1; open('mine', 'w').write('x')"))
    folder, pid = one._session._folder, run(one.exec("import os; os.getpid()")).result
    for code in (
        f"open('{folder}/work/mine').read()",
        f"import os; os.listdir('{folder}')",
        f"import os; os.kill({pid}, 9)",
        f"import os; os.kill({one._session._pid}, 9)",
        "import os; os.kill(os.getppid(), 15)",
    ):
        assert "PermissionError" in run(two.exec(code)).error
    run(two._in_turn(two._afresh))  # ends all that it may signal
    assert run(one.exec("x")).result == "1"
    assert run(two.exec("1")).ok
    run(one.close())
    run(two.close())


def test_as_root_each_session_has_a_user_of_its_own(walled: LocalBackend, spec: SandboxSpec, run: Run) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    boxes = [run(walled.create(spec)) for _ in range(2)]
    uids = {run(box.exec("import os; os.getuid(), os.geteuid()")).result for box in boxes}
    assert len(uids) == 2
    assert all("(0" not in uid and " 0" not in uid for uid in uids)
    for box in boxes:
        run(box.close())


def test_walls_that_do_not_hold_are_found_out(spec: SandboxSpec, run: Run) -> None:
    backend = LocalBackend(warm=0, isolation="landlock")
    backend._zygote = Zygote((), "none")  # as if the kernel had said yes to everything and held nothing
    with pytest.raises(SandboxUnavailable) as told:
        run(backend.create(spec))
    for word in ("opens a socket", "reads a file of the host's", "signals the host", "runs without a filter"):
        assert word in str(told.value)
    with pytest.raises(SandboxUnavailable):
        run(backend.create(spec))
    run(backend.aclose())


def test_several_loops(backend: LocalBackend, spec: SandboxSpec) -> None:
    async def once() -> Any:
        async with await backend.create(spec) as box:
            return await box.exec("1 + 1")

    assert [asyncio.run(once()).result for _ in range(2)] == ["2", "2"]
