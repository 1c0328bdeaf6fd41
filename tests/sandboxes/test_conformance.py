"""What every sandbox promises, whatever its backend."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from agentgym.errors import SandboxFault, SandboxFileError
from agentgym.execution import ExecStatus, SandboxSpec

Run = Callable[..., Any]


def test_variables_and_files_live_on(sandbox: Any, run: Run) -> None:
    assert run(sandbox.exec("x = 20\nprint('set')")).stdout == "set\n"
    assert run(sandbox.exec("open('note', 'w').write('here')\nx + 1")).result == "21"
    assert run(sandbox.read_file("note")) == b"here"
    assert run(sandbox.shell("cat note; echo gone >&2; exit 3")).exit_code == 3
    last = run(sandbox.shell("cat note; echo gone >&2; exit 3"))
    assert (last.status, last.stdout, last.stderr) == (ExecStatus.error, "here", "gone\n")


def test_what_the_code_does_wrong_is_a_result(sandbox: Any, run: Run) -> None:
    failed = run(sandbox.exec("def f():\n    return 1 / 0\nf()"))
    assert (failed.status, failed.error) == (ExecStatus.error, "ZeroDivisionError: division by zero")
    assert "return 1 / 0" in failed.stderr
    assert "worker.py" not in failed.stderr
    assert "SyntaxError" in run(sandbox.exec("def")).error
    assert run(sandbox.exec("raise SystemExit(2)")).status is ExecStatus.error
    assert run(sandbox.exec("raise SystemExit")).ok
    assert run(sandbox.exec("a\ud800")).status is ExecStatus.error
    assert run(sandbox.exec("x = '\\0\\ud800'; x")).ok
    assert run(sandbox.exec("class E(Exception):\n  def __str__(self): return 1/0\nraise E")).error == "E"


def test_output_is_capped_and_says_so(sandbox: Any, run: Run) -> None:
    flood = run(sandbox.exec("print('x' * 5000); 'y' * 9000"))
    assert flood.truncated
    assert flood.stdout.startswith("x" * 2000 + "\n[... 3001 more bytes]")
    assert len(flood.result) < 2100
    assert run(sandbox.exec("import os; _ = os.write(1, b'\\xff\\xfe')")).stdout == "\\xff\\xfe"
    assert not run(sandbox.exec("print('z')")).truncated


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import signal\nfor s in (1, 2, 3, 13, 14, 15): signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
        "import re; re.match('(a+)+$', 'a' * 40 + 'b')",
        "import os, time\nif os.fork() == 0:\n  os.setsid()\n  os.fork()\ntime.sleep(100)",
    ],
)
def test_a_deadline_ends_everything_and_the_next_call_begins_afresh(code: str, sandbox: Any, run: Run) -> None:
    run(sandbox.exec("x = 1"))
    over = run(sandbox.exec(f"print('begun', flush=True)\n{code}", timeout=0.3))
    assert (over.status, over.state_lost, over.stdout) == (ExecStatus.timeout, True, "begun\n")
    assert "NameError" in run(sandbox.exec("x")).error


def test_memory_is_limited_over_all_processes(sandbox: Any, run: Run) -> None:
    assert run(sandbox.exec("a = bytearray(300 << 20)")).status is ExecStatus.oom
    each = "    a = bytearray(b'x') * (40 << 20); time.sleep(30)\n"
    many = f"import os, time\nfor _ in range(8):\n  if os.fork() == 0:\n{each}"
    settled = "for _ in range(6): os.wait()\ntime.sleep(0.5)"  # two of them there is memory for
    assert run(sandbox.exec(many + settled, timeout=15)).status is ExecStatus.oom
    assert run(sandbox.exec("1")).ok


def test_its_own_end_is_told(sandbox: Any, run: Run) -> None:
    for code in (
        "import os; os._exit(0)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import ctypes; ctypes.string_at(0)",
    ):
        ended = run(sandbox.exec(code))
        assert (ended.status, ended.state_lost) == (ExecStatus.killed, True)


def test_a_child_that_comes_back_does_not_answer(sandbox: Any, run: Run) -> None:
    assert run(sandbox.exec("import os; pid = os.fork(); 'both'")).result == "'both'"
    assert [run(sandbox.exec(str(i))).result for i in range(5)] == ["0", "1", "2", "3", "4"]


def test_process_and_disk_limits(sandbox: Any, run: Run) -> None:
    forks = "import os, time\nfor i in range(100):\n  if os.fork() == 0: time.sleep(5); os._exit(0)\n"
    assert "BlockingIOError" in run(sandbox.exec(forks)).error
    run(sandbox.exec("import os; os._exit(0)"))
    full = "for i in range(100): open(f'f{i}', 'wb').write(b'x' * (1 << 20))"
    assert "No space" in run(sandbox.exec(full)).error


def test_files(sandbox: Any, run: Run) -> None:
    run(sandbox.write_file("deep/er/data.bin", bytes(range(256)) * 100))
    assert run(sandbox.read_file("deep/er/data.bin")) == bytes(range(256)) * 100
    with pytest.raises(SandboxFileError, match="more than 10 bytes"):
        run(sandbox.read_file("deep/er/data.bin", 10))
    with pytest.raises(SandboxFileError, match="No such file"):
        run(sandbox.read_file("none"))
    with pytest.raises(SandboxFileError):
        run(sandbox.write_file("/usr/x", b""))
    with pytest.raises(SandboxFileError):
        run(sandbox.read_file("../../etc/shadow"))


def test_a_spec_is_furnished_again_after_a_loss(backend: Any, spec: SandboxSpec, run: Run) -> None:
    sandbox = run(backend.create(SandboxSpec(spec.limits, files={"in.txt": b"7"}, setup="cp in.txt made.txt")))
    assert run(sandbox.exec("open('made.txt').read()")).result == "'7'"
    assert run(sandbox.exec("import os; os._exit(1)")).state_lost
    assert run(sandbox.exec("open('made.txt').read()")).result == "'7'"
    run(sandbox.close())
    with pytest.raises(SandboxFault, match="set-up failed"):
        run(backend.create(SandboxSpec(spec.limits, setup="false")))


def test_sessions_do_not_see_each_other(backend: Any, spec: SandboxSpec, run: Run) -> None:
    one, two = run(backend.create(spec)), run(backend.create(spec))
    run(one.exec("for d in ('/tmp', '/work', '/dev/shm'): open(d + '/mine', 'w').write('x')"))
    seen = run(two.exec("import os; [os.listdir(d) for d in ('/tmp', '/work', '/dev/shm')]"))
    assert seen.result == "[[], [], []]"
    assert run(one.shell("sleep 4242 &")).ok
    seen = run(two.exec("import glob; ['4242' in open(p).read() for p in glob.glob('/proc/[0-9]*/cmdline')]"))
    assert seen.result in (f"[{', '.join(['False'] * n)}]" for n in (1, 2, 3))  # init, worker: nobody else's
    seen = run(one.exec("import glob; any('4242' in open(p).read() for p in glob.glob('/proc/[0-9]*/cmdline'))"))
    assert seen.result == "True"
    run(one.close())
    run(two.close())


def test_closing(sandbox: Any, run: Run) -> None:
    run(sandbox.close())
    run(sandbox.close())
    with pytest.raises(SandboxFault, match="closed"):
        run(sandbox.exec("1"))


def test_a_cancelled_call_leaves_a_usable_sandbox(sandbox: Any, run: Run) -> None:
    async def cut() -> None:
        call = asyncio.create_task(sandbox.exec("import time; time.sleep(60)"))
        await asyncio.sleep(0.1)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    run(cut())
    assert run(sandbox.exec("1 + 1")).result == "2"


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_that_is_none(timeout: float, sandbox: Any, run: Run) -> None:
    with pytest.raises(ValueError, match="timeout"):
        run(sandbox.exec("1", timeout=timeout))


def test_a_terminal_lives_on(sandbox: Any, run: Run) -> None:
    assert run(sandbox.terminal("mkdir sub; cd sub; X=3")).ok
    assert run(sandbox.terminal('echo "$X" "${PWD##*/}"; cat')).stdout == "3 sub\n"
    failed = run(sandbox.terminal("if then"))
    assert (failed.ok, failed.exit_code) == (False, 2)
    assert "syntax error" in failed.stderr.lower()
    assert run(sandbox.terminal('sleep 50 & echo "it\'s" begun')).stdout == "it's begun\n"
    assert run(sandbox.terminal("cat <<'A'\nx'y\nA")).stdout == "x'y\n"
    assert run(sandbox.terminal("(exit 7)")).exit_code == 7
    ended = run(sandbox.terminal("exit 4"))
    assert (ended.exit_code, "the terminal ended" in ended.error) == (4, True)
    assert run(sandbox.terminal('echo "$X."')).stdout == ".\n"
    assert run(sandbox.shell('echo "$X" "${PWD##*/}"')).stdout.split() != ["3", "sub"]


def test_a_snapshot_brings_files_back(sandbox: Any, run: Run) -> None:
    run(sandbox.exec("x = 1; import os; os.makedirs('d'); open('d/a', 'w').write('1'); os.symlink('d/a', 'l')"))
    taken = run(sandbox.snapshot())
    assert run(sandbox.exec("x")).result == "1"
    run(sandbox.exec("open('d/a', 'w').write('2'); open('b', 'w').write('3')"))
    run(sandbox.restore(taken))
    assert "NameError" in run(sandbox.exec("x")).error
    assert run(sandbox.exec("import os; open('l').read(), sorted(os.listdir('.'))")).result == "('1', ['d', 'l'])"
    with pytest.raises(SandboxFileError, match="the snapshot was not restored"):
        run(sandbox.restore(b"no tar"))


def test_a_working_directory(backend: Any, spec: SandboxSpec, run: Run) -> None:
    sandbox = run(backend.create(SandboxSpec(spec.limits, files={"a": b"1"}, workdir="/work/in", setup="pwd > b")))
    assert run(sandbox.exec("open('/work/in/a').read(), open('b').read()")).result == "('1', '/work/in\\n')"
    assert run(sandbox.terminal("pwd")).stdout == "/work/in\n"
    run(sandbox.close())


@pytest.mark.parametrize("path", ["", "a\0b", "../up", "a/../../b"])
def test_paths_that_are_none(path: str, sandbox: Any, run: Run) -> None:
    for call in (sandbox.write_file(path, b""), sandbox.read_file(path)):
        with pytest.raises(SandboxFileError, match="not a path of the sandbox"):
            run(call)


def test_too_much_and_no_text(sandbox: Any, run: Run) -> None:
    assert "at most 1048576" in run(sandbox.exec("#" * (100 << 20))).error
    assert "at most 1048576" in run(sandbox.terminal("#" * (2 << 20))).error
    assert "NUL" in run(sandbox.shell("echo \0")).error
    assert run(sandbox.exec("1\0")).status is ExecStatus.error
    assert run(sandbox.exec("1")).ok
